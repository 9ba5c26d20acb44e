/* The gallery: one large picture under a map of your choice. The address names what is shown: #chelsea/grad_cam, #chelsea/grad_cam/score_cam. */
document.addEventListener("DOMContentLoaded", () => {
  const root = document.getElementById("gallery-viewer");
  if (!root) return;
  const { folder, pictures, methods } = JSON.parse(document.getElementById("gallery-data").textContent);
  const find = (selector) => root.querySelector(selector);
  const [canvas, wipe, chooser, other] = [".gallery-canvas", ".gallery-wipe", "#gallery-method", "#gallery-other"].map(find);
  const [opacity, strip] = ["#gallery-opacity", ".gallery-strip"].map(find);
  const layer = (className) => Object.assign(new Image(), { className });
  const [photo, heat, second] = ["gallery-photo", "gallery-heat", "gallery-heat gallery-second"].map(layer);
  canvas.prepend(photo, Object.assign(document.createElement("span"), { className: "gallery-grey" }), heat, second);
  const rows = [...document.querySelectorAll(".gallery-row")];
  const names = Object.keys(pictures);
  const START = [names[0], "grad_cam"];
  let shown = {};

  const of = (picture) => Object.keys(methods).filter((method) => method in pictures[picture].maps);
  const file = (name) => `${folder}/${name}`;
  const address = ({ picture, method, beside }) => "#" + [picture, method, beside].filter(Boolean).map(encodeURIComponent).join("/");

  /* What the address asks for; what it names wrongly is replaced by the nearest thing that exists. */
  function asked() {
    let parts = location.hash.slice(1).split("/");
    try { parts = parts.map(decodeURIComponent); } catch { parts = []; }
    const picture = parts[0] in pictures ? parts[0] : START[0];
    const known = of(picture);
    const method = [parts[1], START[1]].find((name) => known.includes(name)) || known[0];
    return { picture, method, beside: known.includes(parts[2]) && parts[2] !== method ? parts[2] : "" };
  }

  /* Go somewhere: a new entry of the browser's history, which then shows it. */
  function go(change) {
    const next = { ...shown, ...change };
    const known = of(next.picture);
    if (!known.includes(next.method)) next.method = known.includes(START[1]) ? START[1] : known[0];
    if (!known.includes(next.beside) || next.beside === next.method) next.beside = "";
    if (address(next) !== address(shown)) location.hash = address(next);
  }

  const step = (list, now, by) => list[(list.indexOf(now) + by + list.length) % list.length];
  const otherMethod = (by) => go({ method: step(of(shown.picture), shown.method, by) });

  function options(select, empty) {
    const groups = {};
    for (const method of of(shown.picture)) {
      const { family, name } = methods[method];
      groups[family] ??= Object.assign(document.createElement("optgroup"), { label: family });
      groups[family].append(new Option(name, method));
    }
    select.replaceChildren(...(empty ? [new Option(empty, "")] : []), ...Object.values(groups));
  }

  const element = (tag, text, name = "") => Object.assign(document.createElement(tag), { textContent: text, className: name });

  /* A method's name, kind, what it does and what it costs. */
  function told(method) {
    const { name, kind, does, source, cost } = methods[method];
    const { empty, same_as: same } = pictures[shown.picture].maps[method];
    const block = element("div", "");
    block.append(element("strong", name), " ");
    if (kind) block.append(element("span", kind, `gallery-kind gallery-${kind}`));
    block.append(document.createElement("br"), does);
    if (empty) block.append(" Here the map is empty.");
    if (same) block.append(` Here it is the same map as ${methods[same].name}.`);
    block.append(document.createElement("br"), element("small", [source, cost].filter(Boolean).join(" · ")));
    return block;
  }

  function show() {
    const before = shown;
    shown = asked();
    const { picture, method, beside } = shown;
    const { title, image, size, answer, credit, maps } = pictures[picture];
    if (before.picture !== picture) {
      photo.src = file(image);
      photo.alt = title;
      canvas.style.aspectRatio = `${size[0]} / ${size[1]}`;
      canvas.style.maxWidth = `calc(74vh * ${size[0] / size[1]})`;
      find(".gallery-answer").innerHTML = answer;
      find(".gallery-credit").innerHTML = credit;
      options(chooser);
      options(other, "nothing");
      for (const row of rows) row.hidden = row.dataset.picture !== picture;
      for (const button of strip.children) button.setAttribute("aria-pressed", button.dataset.picture === picture);
      strip.querySelector('[aria-pressed="true"]').scrollIntoView({ block: "nearest", inline: "nearest" });
    }
    heat.src = file(maps[method].heat);
    heat.alt = `Map of ${methods[method].name}`;
    chooser.value = method;
    other.value = beside;
    for (const part of [second, wipe, ...root.querySelectorAll(".gallery-line, .gallery-tag")]) part.hidden = !beside;
    canvas.toggleAttribute("data-two", Boolean(beside));
    if (beside) {
      second.src = file(maps[beside].heat);
      second.alt = `Map of ${methods[beside].name}`;
      find(".gallery-left").textContent = methods[method].name;
      find(".gallery-right").textContent = methods[beside].name;
    }
    find(".gallery-told").replaceChildren(told(method), ...(beside ? [told(beside)] : []));
    for (const tile of document.querySelectorAll(".gallery-tile")) {
      if (tile.hash === address({ picture, method })) tile.setAttribute("aria-current", "true");
      else tile.removeAttribute("aria-current");
    }
  }

  function slide() {
    const share = opacity.value / 100;
    canvas.style.setProperty("--opacity", share);
    canvas.style.setProperty("--grey", Math.min(1, 3 * share)); // colours of the photograph would mix with those of the map
    canvas.style.setProperty("--at", `${wipe.value}%`);
    find("output").textContent = `${opacity.value} %`;
  }

  for (const picture of names) {
    const button = document.createElement("button");
    Object.assign(button, { type: "button", title: pictures[picture].title });
    button.dataset.picture = picture;
    const image = Object.assign(new Image(), { src: file(pictures[picture].small), alt: pictures[picture].title });
    button.append(image);
    button.addEventListener("click", () => go({ picture }));
    strip.append(button);
  }
  for (const tile of document.querySelectorAll(".gallery-tile")) {
    tile.removeAttribute("id"); // the address now names a picture on the stage, not a place on the page
    tile.addEventListener("click", (event) => {
      event.preventDefault();
      const [picture, method] = decodeURIComponent(tile.hash.slice(1)).split("/");
      go({ picture, method });
      if (canvas.getBoundingClientRect().bottom < 120) canvas.scrollIntoView({ block: "start", behavior: "smooth" });
    });
  }
  chooser.addEventListener("change", () => go({ method: chooser.value }));
  other.addEventListener("change", () => go({ beside: other.value }));
  for (const button of root.querySelectorAll(".gallery-step")) button.addEventListener("click", () => otherMethod(Number(button.dataset.step)));
  for (const slider of [opacity, wipe]) slider.addEventListener("input", slide);
  document.addEventListener("keydown", (event) => {
    const at = document.activeElement;
    if (event.altKey || event.ctrlKey || event.metaKey || event.shiftKey || (at && at.matches("input, select, textarea, dialog, dialog *"))) return;
    const onStage = root.contains(at) || at?.matches(".gallery-tile");
    if (event.key === "ArrowLeft") otherMethod(-1);
    else if (event.key === "ArrowRight") otherMethod(1);
    else if (onStage && event.key === "ArrowUp") go({ picture: step(names, shown.picture, -1) });
    else if (onStage && event.key === "ArrowDown") go({ picture: step(names, shown.picture, 1) });
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
  window.addEventListener("hashchange", show);
  root.hidden = false;
  slide();
  show();
  if (location.hash) {
    scrollTo(0, 0); // the browser may have gone to a tile of that name
    if (canvas.getBoundingClientRect().bottom > innerHeight) root.scrollIntoView();
  }
});
