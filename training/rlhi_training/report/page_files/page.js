// Draws the pairs.
(() => {
  const { element, options } = house;
  const data = house.data();
  const filters = ["f-text", "f-source", "f-label", "f-persona", "f-length"].map((id) => document.getElementById(id));
  const [text, source, label, persona, length] = filters;
  const name = (kind) => data.names[kind] ?? kind;
  const values = (field) => [...new Set(data.items.map((item) => item[field]).filter(Boolean))].sort();
  options(source, values("source").map((each) => [each, each]));
  options(label, values("label").map((each) => [each, name(each)]));
  const answer = (item, sign) => item.diff.map(([kind, part]) => (kind === "=" || kind === sign ? part : "")).join("");
  data.items.forEach((item) => {
    item.haystack = [
      item.id, item.user, item.persona, item.followUp, ...item.context.map((said) => said.text),
      answer(item, "+"), answer(item, "-"), ...Object.values(item.ids).flat(),
    ].join("\n").toLowerCase();
  });

  const said = (who, words, className) => {
    const box = element("div", `said ${className}`);
    box.append(element("b", "", who), words);
    return box;
  };
  const side = (item, which, sign, tag) => {
    const box = element("div", `side ${which}`);
    const head = element("h4", "", which);
    head.append(element("span", "", `${item[which]} words · ${item.models[which === "chosen" ? 0 : 1]}`));
    const words = element("p");
    item.diff.forEach(([kind, part]) => {
      if (kind === "=") words.append(part);
      else if (kind === sign) words.append(element(tag, "", part));
    });
    box.append(head, words);
    return box;
  };
  const card = (item) => {
    const box = element("article", "sample pair");
    const last = item.context.at(-1);
    box.append(element("h3", "", last.text.length > 160 ? `${last.text.slice(0, 160)}…` : last.text));
    const chips = element("ul", "chips");
    [item.source, item.label ? `then: ${name(item.label)}` : "no follow-up", item.margin ? `margin ${item.margin.toFixed(2)}` : "not scored",
     item.user ? `user ${item.user}` : "no persona"].forEach((each) => chips.append(element("li", "chip", each)));
    box.append(chips);
    const context = element("div", "context");
    if (item.persona) context.append(said("system message, with the persona", item.persona, "persona"));
    item.context.forEach((each) => context.append(said(each.role, each.text, each.role)));
    const both = element("div", "both");
    both.append(side(item, "chosen", "+", "ins"), side(item, "rejected", "-", "del"));
    box.append(context, both);
    if (item.followUp) box.append(said("what the user said next", item.followUp, "follow"));
    const more = element("details");
    more.append(element("summary", "", "Where it comes from"), element("pre", "", JSON.stringify({ pair: item.id, ...item.ids }, null, 2)));
    box.append(more);
    return box;
  };
  const passes = (item) => {
    const needle = text.value.trim().toLowerCase();
    const side = item.chosen > item.rejected ? "longer" : item.chosen < item.rejected ? "shorter" : "equal";
    return (
      (!needle || item.haystack.includes(needle)) &&
      (!source.value || item.source === source.value) &&
      (!label.value || item.label === label.value) &&
      (!persona.value || (persona.value === "with") === Boolean(item.persona)) &&
      (!length.value || side === length.value)
    );
  };
  house.list({ items: data.items, step: 8, filters, passes, card, unit: "pairs" });
})();
