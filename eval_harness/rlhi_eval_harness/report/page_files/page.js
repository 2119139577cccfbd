// Draws the samples. Everything is put in as text, never as markup: answers may hold anything.
(() => {
  const { element, options } = house;
  const data = house.data();
  const filters = ["f-text", "f-wants", "f-group", "f-outcome", "f-diff"].map((id) => document.getElementById(id));
  const [text, wants, group, outcome, diff] = filters;
  options(wants, Object.entries(data.labels));
  document.getElementById("l-wants").hidden = Object.keys(data.labels).length === 0;
  options(group, [...new Set(data.items.map((item) => item.group))].sort().map((name) => [name, name]));

  options(diff, [...new Set(data.items.flatMap((item) => Object.keys(item.answers)))].map((name) => [name, name]));

  // Word by word: what both share stays, what only one has is marked. Beyond a few thousand words all is marked.
  const LARGEST = 4e6;
  const split = (said) => said.match(/\s+|\S+/g) ?? [];
  const difference = (before, after) => {
    const [a, b] = [split(before), split(after)];
    let start = 0;
    while (start < a.length && start < b.length && a[start] === b[start]) start += 1;
    let [endA, endB] = [a.length, b.length];
    while (endA > start && endB > start && a[endA - 1] === b[endB - 1]) { endA -= 1; endB -= 1; }
    const [x, y] = [a.slice(start, endA), b.slice(start, endB)];
    const parts = [["", a.slice(0, start)]];
    if (x.length * y.length > LARGEST) parts.push(["del", x], ["ins", y]);
    else {
      const width = y.length + 1;
      const longest = new Uint16Array((x.length + 1) * width);
      for (let i = x.length - 1; i >= 0; i -= 1)
        for (let j = y.length - 1; j >= 0; j -= 1)
          longest[i * width + j] = x[i] === y[j] ? longest[(i + 1) * width + j + 1] + 1
            : Math.max(longest[(i + 1) * width + j], longest[i * width + j + 1]);
      const push = (kind, word) => {
        if (parts.at(-1)[0] === kind) parts.at(-1)[1].push(word);
        else parts.push([kind, [word]]);
      };
      let [i, j] = [0, 0];
      while (i < x.length || j < y.length) {
        if (i < x.length && j < y.length && x[i] === y[j]) { push("", x[i]); i += 1; j += 1; }
        else if (j >= y.length || (i < x.length && longest[(i + 1) * width + j] >= longest[i * width + j + 1])) {
          push("del", x[i]);
          i += 1;
        } else { push("ins", y[j]); j += 1; }
      }
    }
    parts.push(["", a.slice(endA)]);
    return parts.filter(([, found]) => found.length).map(([kind, found]) => [kind, found.join("")]);
  };

  const change = (item) => {
    const [before, after] = data.compare.map((name) => item.answers[name]?.kept);
    if (before == null && after != null && data.neutral)
      return after > data.neutral ? "gained" : after < data.neutral ? "lost" : "same";
    if (before == null || after == null) return "";
    if (after === before) return "same";
    return (after > before) === data.lower_is_better ? "lost" : "gained";
  };
  data.items.forEach((item) => {
    item.change = change(item);
    item.haystack = [item.request, item.user, ...Object.values(item.answers).map((a) => a.text)].join("\n").toLowerCase();
  });

  const answer = (subject, given, item) => {
    const box = element("div", "answer");
    box.style.setProperty("--colour", data.colours[subject] ?? "#6b7280");
    const head = element("h4", "", subject);
    if (given.words != null) head.append(element("span", "", `${given.words} words`));
    const said = element("p", given.cut ? "cut" : "");
    const other = item.answers[diff.value];
    if (other && diff.value !== subject)
      difference(other.text, given.text).forEach(([kind, part]) => said.append(kind ? element(kind, "", part) : part));
    else said.textContent = given.text || "(empty)";
    box.append(head, said);
    const chips = element("ul");
    item.wants.forEach((name) => {
      const kept = given.each[name] === 1;
      chips.append(element("li", `chip ${kept ? "kept" : "broken"}`, `${kept ? "✓" : "✗"} ${data.labels[name]}`));
    });
    if (!item.wants.length)
      Object.entries(given.scores).forEach(([name, value]) => chips.append(element("li", "chip", `${name}: ${value}`)));
    box.append(chips);
    if (given.system) {
      const details = element("details");
      details.append(element("summary", "", "System prompt"), element("pre", "", given.system));
      box.append(details);
    }
    return box;
  };
  const card = (item) => {
    const box = element("article", "sample");
    box.append(element("h3", "", item.request));
    const likes = item.wants.map((name) => data.labels[name]).join(", ");
    box.append(element("p", "who", likes ? `${item.user} · ${item.group} wordings · wants: ${likes}` : `${item.user} · ${item.group}`));
    if (item.history.length) {
      const before = element("details");
      before.append(element("summary", "", `${item.history.length} messages before`), element("pre", "", item.history.join("\n\n")));
      box.append(before);
    }
    const answers = element("div", "answers");
    Object.entries(item.answers).forEach(([subject, given]) => answers.append(answer(subject, given, item)));
    box.append(answers);
    return box;
  };
  const passes = (item) => {
    const needle = text.value.trim().toLowerCase();
    return (
      (!needle || item.haystack.includes(needle)) &&
      (!wants.value || item.wants.includes(wants.value)) &&
      (!group.value || item.group === group.value) &&
      (!outcome.value || item.change === outcome.value)
    );
  };
  house.list({ items: data.items, step: 12, filters, passes, card, unit: "prompts" });
})();
