/** Create and change elements. Text is never set as HTML: titles, messages and log lines come from untrusted sources. */

import { plain } from './plain.js';

/**
 * Create an element.
 * @template {keyof HTMLElementTagNameMap} T
 * @param {T} tag
 * @param {Record<string, string>} [attributes]
 * @param {...(Node|string)} children
 * @returns {HTMLElementTagNameMap[T]}
 */
export function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/**
 * Set an element's text if it differs. An element without text is hidden.
 * @param {HTMLElement} element @param {string|null|undefined} text
 */
export function say(element, text) {
  const wanted = plain(text ?? '');
  if (element.textContent !== wanted) element.textContent = wanted;
  if (element.hidden !== (wanted === '')) element.hidden = wanted === '';
}

/**
 * Set an attribute if it differs. Null removes it.
 * @param {Element} element @param {string} name @param {string|number|null} value
 */
export function mark(element, name, value) {
  if (value === null) element.removeAttribute(name);
  else if (element.getAttribute(name) !== String(value)) element.setAttribute(name, String(value));
}

/**
 * Return the page's element with this id. Throws if index.html does not have it.
 * @param {string} id @returns {HTMLElement}
 */
export function byId(id) {
  const element = document.getElementById(id);
  if (!element) throw new Error(`index.html has no #${id}`);
  return element;
}

/**
 * Set the children of a parent, in this order. It moves as few as possible, because a moved element loses the focus.
 * @param {Element} parent @param {Element[]} children
 */
export function arrange(parent, children) {
  const wanted = new Set(children);
  for (const child of [...parent.children]) if (!wanted.has(child)) child.remove();
  let next = parent.firstElementChild;
  for (const child of children) {
    if (child === next) next = next.nextElementSibling;
    else parent.insertBefore(child, next);
  }
}
