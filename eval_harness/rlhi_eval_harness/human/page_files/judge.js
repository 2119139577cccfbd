// Runs once, with `element` and `trigger` from Gradio: turns keys and clicks into 'act' events, one at a time.
const ANSWER_MS = 8000;
const SIDES = { 1: "left", ArrowLeft: "left", 2: "tie", t: "tie", T: "tie", 3: "right", ArrowRight: "right" };
const find = (selector) => element.querySelector(selector);
const rows = () => [...element.querySelectorAll("[data-dimension]")];
const chosen = (row) => row.querySelector('[aria-checked="true"]');
let order = [];
let sent = "";

const nonce = () => find("[data-nonce]")?.dataset.nonce ?? "";

const act = (what, more = {}) => {
  if (sent && sent === nonce()) return;
  sent = nonce() || "first";
  const waited = sent;
  find("main")?.setAttribute("aria-busy", "true");
  trigger("act", { what, token: find("[data-token]")?.dataset.token ?? "", note: find(".note textarea")?.value ?? "", ...more });
  setTimeout(() => {
    if (waited !== nonce()) return;
    sent = "";
    const main = find("main");
    main?.removeAttribute("aria-busy");
    if (!main || find(".message.silent")) return;
    const said = document.createElement("p");
    said.className = "message silent";
    said.setAttribute("role", "alert");
    said.textContent = "No answer yet. If rlhi-eval human has been stopped, start it again and reload this page: what you judged before is stored.";
    main.prepend(said);
  }, ANSWER_MS);
};

const mark = () => {
  const open = rows().find((row) => !chosen(row));
  rows().forEach((row) => row.classList.toggle("active", row === open));
};

const choose = (row, side) => {
  if (!row || find('[aria-busy="true"]')) return;
  row.querySelectorAll("[data-side]").forEach((button) => button.setAttribute("aria-checked", String(button.dataset.side === side)));
  order = [...order.filter((each) => each !== row), row];
  mark();
  if (rows().every(chosen))
    act("judge", { answers: Object.fromEntries(rows().map((each) => [each.dataset.dimension, chosen(each).dataset.side])) });
};

const undo = () => {
  const last = order.filter((row) => row.isConnected && chosen(row)).pop();
  if (!last) return act("undo");
  if (find('[aria-busy="true"]')) return;
  chosen(last).setAttribute("aria-checked", "false");
  order = order.filter((row) => row !== last);
  mark();
};

const open = (selector, inside) => {
  const details = find(selector);
  if (!details) return;
  details.open = !details.open;
  if (details.open) details.querySelector(inside)?.focus();
};

element.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  if (button.dataset.side) choose(button.closest("[data-dimension]"), button.dataset.side);
  else if (button.dataset.reason) act("skip", { reason: button.dataset.reason });
  else if ("undo" in button.dataset) undo();
  else if ("more" in button.dataset) act("more");
  else if ("leave" in button.dataset) act("leave");
});

element.addEventListener("submit", (event) => {
  event.preventDefault();
  const name = find("#rater").value.trim();
  if (name) act("start", { rater: name });
});

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || !find("[data-token]")) return;
  if (event.target.matches?.("input, textarea, select")) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  const skipping = find(".skip")?.open;
  const reason = skipping && element.querySelectorAll("[data-reason]")[Number(event.key) - 1];
  if (skipping && event.key === "Escape") find(".skip").open = false;
  else if (reason) reason.click();
  else if (skipping && SIDES[event.key]) return;
  else if (SIDES[event.key]) choose(rows().find((row) => !chosen(row)), SIDES[event.key]);
  else if (event.key === "u" || event.key === "U" || event.key === "Backspace") undo();
  else if (event.key === "s" || event.key === "S") open(".skip", "[data-reason]");
  else if (event.key === "n" || event.key === "N") open(".note", "textarea");
  else return;
  event.preventDefault();
});

const arrived = () => {
  order = [];
  mark();
  window.scrollTo(0, 0);
  const begin = find("#rater") ?? find("h1[tabindex], .request h2");
  begin?.focus({ preventScroll: true });
};
watch("value", arrived);
arrived();
