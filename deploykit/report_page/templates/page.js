"use strict";
(() => {
  const root = document.documentElement;
  const themes = ["system", "light", "dark"];
  const key = "deploykit-report-theme";
  // A page opened from a file or in a frame may have no storage.
  const remembered = () => { try { return localStorage.getItem(key); } catch { return null; } };
  const remember = (theme) => { try { localStorage.setItem(key, theme); } catch { return; } };
  const apply = (theme) => {
    if (theme === "system") root.removeAttribute("data-theme");
    else root.setAttribute("data-theme", theme);
  };
  let theme = themes.includes(remembered()) ? remembered() : "system";
  apply(theme);

  const number = (cell) => cell.dataset.value ?? cell.textContent.trim();
  const compare = (a, b) => {
    const x = Number(a), y = Number(b);
    if (a !== "" && b !== "" && !Number.isNaN(x) && !Number.isNaN(y)) return x - y;
    return a.localeCompare(b, "en", { numeric: true });
  };
  const known = (cell) => !(cell.querySelector(".missing") && cell.dataset.value === undefined);

  function sort(header) {
    const table = header.closest("table"), body = table.tBodies[0];
    const column = [...header.parentNode.children].indexOf(header);
    const down = header.getAttribute("aria-sort") === "ascending";
    for (const other of header.parentNode.children) other.setAttribute("aria-sort", "none");
    header.setAttribute("aria-sort", down ? "descending" : "ascending");
    const rows = [...body.rows];
    // What was not measured stays at the end in either direction.
    rows.sort((one, other) => {
      const a = one.cells[column], b = other.cells[column];
      if (known(a) !== known(b)) return known(a) ? -1 : 1;
      return (down ? -1 : 1) * compare(number(a), number(b));
    });
    body.append(...rows);
  }

  function filter() {
    const text = document.getElementById("filter-text").value.trim().toLowerCase();
    const rows = [...document.querySelector("#file-table tbody").rows];
    let shown = 0;
    for (const row of rows) {
      const fits = ["recipe", "target", "precision"].every((name) => {
        const wanted = document.getElementById(`filter-${name}`).value;
        return wanted === "" || row.dataset[name] === wanted;
      });
      row.hidden = !(fits && row.textContent.toLowerCase().includes(text));
      shown += row.hidden ? 0 : 1;
    }
    document.getElementById("filter-count").textContent = `${shown} of ${rows.length} shown`;
  }

  document.addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme");
    const label = () => { button.textContent = `Theme: ${theme}`; };
    label();
    button.hidden = false;
    button.addEventListener("click", () => {
      theme = themes[(themes.indexOf(theme) + 1) % themes.length];
      apply(theme);
      remember(theme);
      label();
    });
    for (const header of document.querySelectorAll("table.sortable thead th")) {
      header.querySelector("button").addEventListener("click", () => sort(header));
    }
    const form = document.querySelector(".filters");
    form.hidden = false;
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("input", filter);
    let closed = [];
    window.addEventListener("beforeprint", () => {
      closed = [...document.querySelectorAll("details:not([open])")];
      for (const one of closed) one.open = true;
    });
    window.addEventListener("afterprint", () => { for (const one of closed) one.open = false; });
  });
})();
