/* Frames that scroll: reached by keyboard, named for screen readers, shaded where they are cut. */
if (location.protocol === "file:" && typeof DOCUMENTATION_OPTIONS === "object")
  DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false; // browsers refuse to read other pages from disk

addEventListener("DOMContentLoaded", () => {
  const KINDS = { ".wide, .pst-scrollable-table-container, .text_html": "Table", pre: "Code", "div.math": "Equation", ".plot": "Figure", ".gallery-strip": "Choice" };
  const frames = document.querySelectorAll(`.bd-article :is(${Object.keys(KINDS).join()})`);

  function look(frame) {
    const hidden = frame.scrollWidth - frame.clientWidth;
    if (hidden <= 1) {
      for (const name of ["tabindex", "role", "aria-label", "data-cut"]) frame.removeAttribute(name);
      return;
    }
    const [left, right] = [frame.scrollLeft > 1, frame.scrollLeft < hidden - 1];
    frame.dataset.cut = left && right ? "both" : left ? "left" : "right";
    frame.tabIndex = 0;
    frame.setAttribute("role", "region");
    frame.setAttribute("aria-label", frame.dataset.name);
  }

  for (const row of document.querySelectorAll("table.matrix tbody tr:not(.paper)")) {
    const heads = row.closest("table").tHead?.rows[0].cells ?? []; // on a phone each cell stands below the other and says what it is
    [...row.cells].slice(1).forEach((cell, number) => (cell.dataset.label = heads[number + 1]?.textContent ?? ""));
  }

  const sizes = new ResizeObserver((entries) => entries.forEach((entry) => look(entry.target.closest("[data-name]"))));
  window.watchFrame = (frame, told) => {
    frame.dataset.name = told;
    frame.addEventListener("scroll", () => look(frame), { passive: true });
    for (const part of [frame, ...frame.children]) sizes.observe(part); // an equation grows when it is typeset
  };
  frames.forEach((frame, number) => {
    const kind = Object.entries(KINDS).find(([which]) => frame.matches(which))[1];
    const told = frame.getAttribute("aria-label") || frame.querySelector("caption")?.textContent.trim() || String(number + 1);
    window.watchFrame(frame, `${kind} that scrolls sideways: ${told}`);
  });
  addEventListener("load", () => frames.forEach(look));

  function unfold() { // a link to a fold, or to a place in one, opens it
    const id = location.hash.slice(1);
    const target = /%(?![\da-f]{2})/i.test(id) ? null : document.getElementById(decodeURIComponent(id));
    const folds = [];
    for (let fold = target?.closest("details:not([open])"); fold; fold = fold.parentElement.closest("details:not([open])")) folds.push(fold);
    for (const fold of folds) fold.open = true;
    if (folds.length) target.scrollIntoView();
  }
  unfold();
  addEventListener("hashchange", unfold);
  document.addEventListener("click", (event) => event.target.closest?.('a[href^="#"]') && setTimeout(unfold)); // the same link again
  addEventListener("beforeprint", () => document.querySelectorAll(".bd-article details:not(.hide)").forEach((fold) => (fold.open = true)));
});
