// What the tests ask of a page: lists of faults in words.
window.look = {
  /** Tables, code, equations and figures wider than the column, unless in a frame that scrolls, is focusable, named and shaded. */
  wider() {
    const column = document.querySelector(".bd-article, .bd-search-container, main").getBoundingClientRect();
    const faults = [];
    const said = (part) => `${part.tagName}.${part.className} ${part.clientWidth} px: ${part.textContent.trim().slice(0, 40)}`;
    const scrolls = (part) => part.scrollWidth > part.clientWidth + 1 && /auto|scroll/.test(getComputedStyle(part).overflowX);
    const frame = (part) => {
      for (let up = part; up.matches(".bd-article *"); up = up.parentElement) if (scrolls(up)) return up;
      return null;
    };
    const parts = "table, pre, code, mjx-container, figure, img, svg, video, canvas, .admonition, .sd-card";
    for (const part of document.querySelectorAll(`.bd-article :is(${parts})`)) {
      if (!part.getClientRects().length) continue;
      const box = part.getBoundingClientRect();
      const within = frame(part);
      if (!within) {
        if (box.right > column.right + 1 || box.left < column.left - 1) faults.push("wider than the column: " + said(part));
        continue;
      }
      const named = within.tabIndex === 0 && within.getAttribute("role") === "region" && within.getAttribute("aria-label");
      if (within.getBoundingClientRect().right > column.right + 1) faults.push("its frame is wider than the column: " + said(within));
      if (!named) faults.push("no focus, role or name: " + said(within));
      if (getComputedStyle(within).maskImage === "none") faults.push("no shade where it is cut: " + said(within));
    }
    const html = document.documentElement;
    if (html.scrollWidth > html.clientWidth) faults.push(`the page scrolls sideways: ${html.scrollWidth} px`);
    return [...new Set(faults)];
  },

  /** Captions and other small words with a contrast below 4.5, and pictures that the theme alters. */
  faint() {
    const paint = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
    const rgba = (colour) => {
      paint.clearRect(0, 0, 1, 1);
      paint.fillStyle = colour;
      paint.fillRect(0, 0, 1, 1);
      return [...paint.getImageData(0, 0, 1, 1).data];
    };
    const linear = (c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    const light = ([r, g, b]) => 0.2126 * linear(r / 255) + 0.7152 * linear(g / 255) + 0.0722 * linear(b / 255);
    const behind = (part) => {
      for (let up = part; up; up = up.parentElement) {
        const colour = rgba(getComputedStyle(up).backgroundColor);
        if (colour[3] > 250) return colour;
      }
      return [255, 255, 255];
    };
    const faults = [];
    const words = "figcaption, caption, .caption-text, .credit, .provenance, .flag, .badge, small, dt, th, summary, .plot-title";
    for (const part of document.querySelectorAll(`.bd-article :is(${words})`)) {
      if (!part.getClientRects().length || !part.textContent.trim()) continue;
      const [dark, bright] = [light(rgba(getComputedStyle(part).color)), light(behind(part))].sort((a, b) => a - b);
      const ratio = (bright + 0.05) / (dark + 0.05);
      if (ratio < 4.5) faults.push(`${part.tagName}.${part.className} ${ratio.toFixed(2)}: ${part.textContent.trim().slice(0, 40)}`);
    }
    for (const picture of document.querySelectorAll(".bd-article img")) {
      const style = getComputedStyle(picture);
      const blended = !picture.closest("[class*='gallery']") && style.opacity !== "1"; // the gallery's slider blends on purpose
      if (style.filter !== "none" || blended || style.mixBlendMode !== "normal") faults.push("altered: " + picture.src);
    }
    return faults;
  },

  /** What reaches over the right edge of the sheet. */
  cut() {
    const parts = [...document.querySelectorAll(".bd-article :is(table, pre, img, mjx-container)")];
    const over = parts.filter((part) => part.getClientRects().length && part.getBoundingClientRect().right > innerWidth + 1);
    return over.map((part) => `${part.tagName}.${part.className}: ${part.textContent.trim().slice(0, 60)}`);
  },

  /** Serious and critical findings of axe-core, which has been added to the page. */
  async serious(rules) {
    const asked = { preload: false, resultTypes: ["violations"], ...(rules.length ? { runOnly: rules } : {}) };
    const { violations } = await axe.run({ exclude: [".cell_input"] }, asked);
    const grave = violations.filter((one) => ["serious", "critical"].includes(one.impact));
    return grave.flatMap((one) => one.nodes.map((node) => `${one.id}: ${node.html.slice(0, 120)}`));
  },
};
