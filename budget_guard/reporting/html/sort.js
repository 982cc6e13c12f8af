for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.querySelectorAll("th")];
  const body = table.tBodies[0];
  const valueOf = (row, i) => {
    const cell = row.cells[i];
    return cell.dataset.v === undefined ? cell.textContent.toLowerCase() : Number(cell.dataset.v);
  };
  const compare = (a, b) => (typeof a === "number" ? a - b : a.localeCompare(b));
  heads.forEach((head, i) =>
    head.firstChild.addEventListener("click", () => {
      const isNumber = head.classList.contains("n");
      const order = head.ariaSort === (isNumber ? "descending" : "ascending") ? -1 : 1;
      const sign = isNumber ? -order : order;
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.ariaSort = sign > 0 ? "ascending" : "descending";
      const rows = [...body.rows].sort((a, b) => sign * compare(valueOf(a, i), valueOf(b, i)));
      body.append(...rows);
    }),
  );
}
