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

const SPACE = '\u00a0';

/** Three digits, more for what takes seconds; the unit stays on the line of the number. */
export function ms(seconds: number): string {
  const value = seconds * 1000;
  return `${value.toFixed(value >= 100 ? 0 : value >= 10 ? 1 : 2)}${SPACE}ms`;
}

export function percent(share: number, digits = 1): string {
  return `${(share * 100).toFixed(digits)}${SPACE}%`;
}
