// Elements without HTML in strings, so that no file name can become markup.

const SVG = "http://www.w3.org/2000/svg";

/** Make an element: attributes and listeners by name ("onclick"), then its children. */
export function el(tag, properties = {}, ...children) {
  return fill(document.createElement(tag), properties, children);
}

/** Make an SVG element, likewise. */
export function svg(tag, properties = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), properties, children);
}

function fill(node, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

/** The symbol of a label; it is decoration beside the word. */
export function icon(label) {
  const use = svg("use", { href: `#icon-${label}` });
  return svg("svg", { class: "icon", viewBox: "0 0 24 24", "aria-hidden": "true" }, use);
}

/** The symbol and the word. */
export function badge(label) {
  return el("span", { class: `badge ${label}` }, icon(label), label);
}

/** Say something to those who listen to the page; the others see it anyway. */
export function announce(text) {
  document.getElementById("status").textContent = text;
}
