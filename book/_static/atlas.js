// The ledger: sort by a column's heading, filter by chapter, verdict, place and words. Nothing leaves the page.
document.addEventListener("DOMContentLoaded", () => {
  const table = document.getElementById("ledger");
  if (!table) return;
  const body = table.tBodies[0];
  const rows = Array.from(body.rows);
  const headings = Array.from(table.tHead.rows[0].cells);
  const form = document.querySelector(".na-filters");
  const output = form.querySelector("output");
  const value = (row, column) => row.cells[column].dataset.sort || row.cells[column].textContent.trim();

  headings.forEach((heading, column) => {
    heading.querySelector("button").addEventListener("click", () => {
      const down = heading.getAttribute("aria-sort") === "ascending";
      headings.forEach((other) => other.setAttribute("aria-sort", "none"));
      heading.setAttribute("aria-sort", down ? "descending" : "ascending");
      const order = (a, b) => value(a, column).localeCompare(value(b, column), undefined, { numeric: true });
      rows.sort((a, b) => (down ? order(b, a) : order(a, b))).forEach((row) => body.append(row));
    });
  });

  const filter = () => {
    let shown = 0;
    for (const row of rows) {
      const fits = Array.from(form.querySelectorAll("[data-filter]")).every((field) => {
        if (!field.value) return true;
        if (field.dataset.filter === "text") return row.textContent.toLowerCase().includes(field.value.toLowerCase());
        return row.dataset[field.dataset.filter] === field.value;
      });
      row.hidden = !fits;
      shown += fits;
    }
    output.textContent = `${shown} of ${rows.length} claims`;
  };
  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  filter();
});
