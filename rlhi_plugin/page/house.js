// What the pages' own scripts share. Everything is put in as text, never as markup: it may hold anything.
const house = {
  data: () => JSON.parse(document.getElementById("data").textContent),
  element: (name, className, content) => {
    const made = document.createElement(name);
    if (className) made.className = className;
    if (content !== undefined) made.textContent = content;
    return made;
  },
  options: (select, values) =>
    values.forEach(([value, label]) => {
      const option = house.element("option", "", label);
      option.value = value;
      select.append(option);
    }),
  // A list that is filtered by controls and grows by a button.
  list: ({ items, step, filters, passes, card, unit }) => {
    const [list, more, count] = ["list", "more", "f-count"].map((id) => document.getElementById(id));
    let shown = step;
    const draw = () => {
      const found = items.filter(passes);
      list.replaceChildren(...found.slice(0, shown).map(card));
      count.textContent = `${found.length} of ${items.length} ${unit}`;
      more.hidden = found.length <= shown;
    };
    filters.forEach((filter) => filter.addEventListener("input", () => { shown = step; draw(); }));
    document.querySelector(".filters").addEventListener("submit", (event) => event.preventDefault());
    more.addEventListener("click", () => { shown += step; draw(); });
    draw();
  },
};
