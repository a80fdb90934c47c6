/** Elements of the page by their id. */

export function element<T extends HTMLElement = HTMLElement>(id: string): T {
  const found = document.getElementById(id);
  if (!found) throw new Error(`there is no element ${id}`);
  return found as T;
}

export function make<K extends keyof HTMLElementTagNameMap>(name: K, text = '', className = ''): HTMLElementTagNameMap[K] {
  const made = document.createElement(name);
  made.textContent = text;
  if (className) made.className = className;
  return made;
}

export const ms = (seconds: number) => `${(seconds * 1000).toPrecision(3)} ms`;
export const percent = (share: number, digits = 1) => `${(share * 100).toFixed(digits)} %`;
