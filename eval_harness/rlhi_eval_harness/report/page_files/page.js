// Draws the samples. Everything is put in as text, never as markup: answers may hold anything.
(() => {
  const { element, options } = house;
  const data = house.data();
  const filters = ["f-text", "f-wants", "f-group", "f-outcome"].map((id) => document.getElementById(id));
  const [text, wants, group, outcome] = filters;
  options(wants, Object.entries(data.labels));
  document.getElementById("l-wants").hidden = Object.keys(data.labels).length === 0;
  options(group, [...new Set(data.items.map((item) => item.group))].sort().map((name) => [name, name]));

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
    box.append(head, element("p", given.cut ? "cut" : "", given.text || "(empty)"));
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
