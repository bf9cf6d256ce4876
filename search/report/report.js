"use strict";
(() => {
  const chooser = document.getElementById("choose-map");
  if (chooser) {
    const maps = [...document.querySelectorAll("[data-map]")];
    const show = () => maps.forEach((map) => { map.hidden = map.dataset.map !== chooser.value; });
    chooser.addEventListener("change", show);
    show();
  }
  for (const table of document.querySelectorAll("table[data-sortable]")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, place) => head.querySelector("button").addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") !== "descending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const value = (row) => row.cells[place].dataset.value ?? row.cells[place].textContent;
      const order = (a, b) => {
        const [x, y] = [value(a), value(b)];
        if (x === "" || y === "") return (x === "") - (y === "");
        const both = isNaN(x) || isNaN(y) ? x.localeCompare(y) : x - y;
        return down ? -both : both;
      };
      const body = table.tBodies[0];
      body.append(...[...body.rows].sort(order));
    }));
  }
  let closed = [];
  addEventListener("beforeprint", () => {
    closed = [...document.querySelectorAll("details:not([open])")];
    closed.forEach((part) => { part.open = true; });
  });
  addEventListener("afterprint", () => closed.forEach((part) => { part.open = false; }));
})();
