"use strict";
// The page's program. Texts of people and models reach the page as text nodes only, never as markup.

const KEY = "fspo-key"; // in sessionStorage: it ends with the tab
const PAGE = 20; // preferences or conversations that are listed at a time
const MOST_LISTED = 100; // in one answer of the server
const MOST_SKIPPED = 100; // that the server accepts
const SWITCHES = ["personalise", "keep_conversations", "allow_training"]; // settings of the account, with their ids
const $ = (id) => document.getElementById(id);
const say = (text) => { $("status").textContent = text; };
const complain = (text) => { $("problem").textContent = text; };

let pairs = []; // pairs to answer, the next one last
let pair = null;
let skipped = []; // ids of the server's questions that the person does not want to answer
let known = []; // the listed preferences, newest first
let total = 0;
let conversations = []; // the listed conversations, newest first
let wanted = PAGE; // how many of them to list
let stale = false; // whether they may have changed since they were asked for
let used = []; // ids of the preferences that the answer was given
let last = { prompt: "", text: "", count: 0 };
let judged = null; // the whole answer on the page, which the person may rate: { id, prompt, text, thumb, before }
let session = 0; // begins with each sign-in and ends with the sign-out; see `ours`

function element(name, text = "", kind = "") {
  const made = document.createElement(name);
  made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

function button(text, label, act, kind = "plain") {
  const made = element("button", text, kind);
  made.type = "button";
  made.setAttribute("aria-label", label);
  made.addEventListener("click", act);
  return made;
}

const counted = (count) => `${count} ${count === 1 ? "preference" : "preferences"}`;

// Requests

// What the promise gives. If the session has ended meanwhile, it is an AbortError, which ends the action without a
// word: what arrives for one person must not change the page of the next one.
async function ours(promise) {
  const mine = session;
  try {
    return await promise;
  } finally {
    if (mine !== session) throw new DOMException("The session has ended.", "AbortError"); // also in place of an error
  }
}

class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

async function request(method, path, body, signal) {
  const key = sessionStorage.getItem(KEY) ?? "";
  if (!/^[!-~]+$/.test(key)) throw new Refused(401, "The key is not valid."); // no header can hold it
  const headers = { authorization: `Bearer ${key}` };
  if (body !== undefined) headers["content-type"] = "application/json";
  let answer;
  try {
    answer = await ours(fetch(`v1/${path}`, {
      method, headers, signal, cache: "no-store", body: body === undefined ? undefined : JSON.stringify(body),
    }));
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(0, "The server can't be reached. Check that it runs, then try again.");
  }
  if (!answer.ok) {
    const found = await ours(answer.json().catch(() => null));
    throw new Refused(answer.status, found?.error?.message ?? `The server answered with status ${answer.status}.`);
  }
  return answer;
}

const json = async (...given) => ours((await request(...given)).json());

// Does the work once at a time for each name; an error is shown, and a key that is not valid any more signs out. What
// the person did not ask for is quiet: the complaint before it stays.
let busy = new Set(); // of this session
async function doing(name, work, quiet = false) {
  if (busy.has(name)) return;
  const under = busy;
  under.add(name);
  if (!quiet) complain("");
  try {
    await work();
  } catch (error) {
    if (error.name === "AbortError") return;
    if (error.status === 401) signOut();
    complain(error.message);
    if (!(error instanceof Refused)) throw error;
  } finally {
    under.delete(name);
  }
}

// Shows in an open dialog why something was refused, so that what was written there stays.
function showIn(place, error) {
  if (!(error instanceof Refused) || error.status === 401) throw error;
  $(place).textContent = error.message;
}

// Signing in and out

async function enter() {
  session += 1;
  const account = await json("GET", "me");
  $("key").value = "";
  $("name").textContent = account.name;
  $("description").value = account.description;
  for (const field of SWITCHES) $(field).checked = account[field];
  total = account.preferences;
  $("welcome").hidden = true;
  $("account").hidden = $("signed-in").hidden = false;
  await list();
  await nextPair();
  $("pair-title").focus();
  answerBoth();
}

function signOut() {
  session += 1;
  busy = new Set();
  sessionStorage.removeItem(KEY);
  for (const model of ["fspo", "base"]) {
    writing[model]?.abort();
    $(`${model}-answer`).textContent = "";
  }
  [pairs, pair, skipped, known, total, conversations, used] = [[], null, [], [], 0, [], []];
  last = { prompt: "", text: "", count: 0 };
  judged = rewritten = null;
  wanted = PAGE;
  $("conversations-fold").open = false;
  for (const id of ["known", "conversations", "shots", "earlier", "question", "name", "count", "why"]) $(id).replaceChildren();
  $("shots-fold").hidden = $("earlier-fold").hidden = true;
  $("description").value = $("edit-prompt").value = $("edit-chosen").value = $("edit-rejected").value = $("rewritten").value = "";
  for (const one of [1, 2]) $(`choose-${one}`).lastElementChild.textContent = "";
  document.querySelectorAll("dialog[open]").forEach((one) => one.close());
  $("account").hidden = $("signed-in").hidden = true;
  $("welcome").hidden = false;
  say("");
  $("key").focus();
}

// Pairs to answer

async function nextPair() {
  pair = document.body.dataset.asks === "yes" ? await askedPair() : await writtenPair();
  $("question").textContent = pair?.prompt ?? "There is no question left.";
  $("choose-1").lastElementChild.textContent = pair?.first ?? "";
  $("choose-2").lastElementChild.textContent = pair?.second ?? "";
  $("choices").hidden = $("choosing").hidden = !pair;
}

// The server's own question, whose answer says most about the person; null when none is left.
async function askedPair() {
  try {
    return await json("GET", `next-question?${skipped.map((id) => `skip=${encodeURIComponent(id)}`).join("&")}`);
  } catch (error) {
    if (error.status === 404) return null;
    throw error;
  }
}

async function writtenPair() {
  const answered = new Set(known.map((one) => one.prompt.at(-1).content));
  let found;
  do {
    if (!pairs.length) pairs = await ours((await ours(fetch("page/pairs", { cache: "no-store" }))).json());
    found = pairs.pop();
  } while (answered.has(found.prompt) && pairs.length);
  return found;
}

function skip() {
  return doing("choose", async () => {
    if (pair?.id) skipped = [...skipped, pair.id].slice(-MOST_SKIPPED);
    await nextPair();
    $("pair-title").focus({ preventScroll: true });
  });
}

function choose(number) {
  return doing("choose", async () => {
    if (!pair) return;
    const [chosen, rejected] = number === 1 ? [pair.first, pair.second] : [pair.second, pair.first];
    const saved = await json("POST", "preferences", { prompt: pair.prompt, chosen, rejected, source: "page" });
    pair = null;
    if (!known.some((one) => one.id === saved.id)) total += 1;
    known = [saved, ...known.filter((one) => one.id !== saved.id)];
    showKnown();
    say(`Saved: you prefer answer ${number}. ${counted(total)} in all.`);
    await nextPair();
    $("pair-title").focus({ preventScroll: true });
    answer("fspo");
  });
}

// Answers

const writing = {}; // model -> what ends the answer that is being written

async function* chunks(answered) {
  const decoder = new TextDecoder();
  let rest = "";
  for (const reader = answered.body.getReader(); ;) {
    const { done, value } = await reader.read();
    if (done) return;
    const events = (rest + decoder.decode(value, { stream: true })).split("\n\n");
    rest = events.pop();
    for (const event of events) {
      const text = event.replace(/^data: /, "");
      if (text !== "[DONE]") yield JSON.parse(text);
    }
  }
}

// The most probable answer each time: what changes comes from the preferences alone. Another answer is a random one.
async function answer(model, another = false) {
  writing[model]?.abort();
  const ending = (writing[model] = new AbortController());
  const place = $(`${model}-answer`);
  const prompt = $("prompt").value.trim();
  if (!prompt) return;
  place.setAttribute("aria-busy", "true");
  let text = "";
  let id = null;
  const before = another && judged?.prompt === prompt ? judged.id : null;
  if (model === "fspo") showJudging(null);
  try {
    const answered = await request("POST", "chat/completions", {
      model, stream: true, temperature: another ? 1 : 0, max_tokens: Number(document.body.dataset.maxTokens),
      messages: [{ role: "user", content: prompt }], fspo: { shots: true },
    }, ending.signal);
    for await (const chunk of chunks(answered)) {
      if (chunk.error) throw new Refused(502, chunk.error.message);
      if (ending.signal.aborted) return;
      if (chunk.fspo && model === "fspo") showShots(chunk.fspo.shots);
      id = chunk.id;
      text += chunk.choices[0]?.delta?.content ?? "";
      place.textContent = text;
    }
    place.textContent = text || "(The answer is empty.)";
    listConversations(true);
    if (model !== "fspo") return;
    remember(prompt, text);
    if (text) showJudging({ id, prompt, text, thumb: "none", before });
  } catch (error) {
    if (ending.signal.aborted) return;
    if (error.status === 401) signOut();
    complain(error instanceof Refused ? error.message : "The answer was interrupted. Try again.");
  } finally {
    if (writing[model] === ending) place.setAttribute("aria-busy", "false");
  }
}

function answerBoth() {
  answer("fspo");
  answer("base");
}

// Why the model saw no preferences. The server leaves out those on the prompt itself, and those without room.
function whyNone() {
  if (!$("personalise").checked) return "Personalisation is paused.";
  if (!total) return "You have no preferences yet. Choose an answer above.";
  const wording = (text) => text.normalize("NFKC").toLowerCase().replace(/\s+/g, " ").trim();
  const asked = wording($("prompt").value);
  const same = known.every((one) => one.prompt.length === 1 && wording(one.prompt[0].content) === asked);
  return known.length === total && same
    ? "None of your preferences was used: all of them are about this question."
    : "None of your preferences was used: they are about this question, or there is no room for them.";
}

function showShots(shots) {
  used = shots.map((shot) => shot.id);
  $("why").textContent = shots.length ? `The model saw ${counted(shots.length)} of yours.` : whyNone();
  $("shots").replaceChildren(...shots.map((shot) => {
    const row = element("li");
    row.append(element("p", shot.prompt, "prompt"), element("p", `You prefer: ${shot.chosen}`),
      element("p", `over: ${shot.rejected}`, "muted"));
    return row;
  }));
  $("shots-fold").hidden = !shots.length;
  showKnown();
}

function remember(prompt, text) {
  if (last.prompt !== prompt) {
    $("earlier").replaceChildren();
  } else if (last.text && last.text !== text) {
    $("earlier").prepend(element("li", `With ${counted(last.count)}: ${last.text}`));
  }
  $("earlier-fold").hidden = !$("earlier").childElementCount;
  last = { prompt, text, count: used.length };
}

// Rating the answer. The server compares answers to one prompt, so it needs to have saved them.

function showJudging(answered) {
  judged = answered;
  const may = $("keep_conversations").checked;
  $("judging").hidden = !may;
  $("judging-off").hidden = may;
  for (const thumb of ["up", "down"]) {
    $(`thumb-${thumb}`).setAttribute("aria-pressed", String(judged?.thumb === thumb));
    $(`thumb-${thumb}`).disabled = !judged;
  }
  $("rewrite").disabled = !judged;
  $("better").hidden = !judged?.before;
}

async function judge(one, given) {
  const found = await json("POST", "feedback", { answer: one.id, ...given });
  if (given.thumb && one === judged) showJudging(Object.assign(one, given));
  const made = found.preferences.length;
  if (made || found.removed) {
    total = (await json("GET", "me")).preferences;
    await list();
  }
  if (made) say(`Saved. ${counted(made)} ${made === 1 ? "follows" : "follow"} from it; ${counted(total)} in all.`);
  else if (given.thumb === "none") say("Your rating is taken back.");
  else say("Saved. A preference follows when you rate another answer to this prompt the opposite way.");
}

function rate(thumb) {
  return doing("judge", () => judge(judged, { thumb: judged.thumb === thumb ? "none" : thumb }));
}

let rewritten = null;
function openRewriting() {
  rewritten = judged;
  $("rewriting-problem").textContent = "";
  $("rewritten").value = judged.text;
  $("rewriting").showModal();
}

function saveRewritten() {
  return doing("judge", async () => {
    try {
      await judge(rewritten, { edit: $("rewritten").value });
    } catch (error) {
      showIn("rewriting-problem", error);
      return;
    }
    $("rewriting").close();
  });
}

// What is known

function listed(what, last, limit = PAGE) {
  return json("GET", `${what}?limit=${limit}${last ? `&after=${encodeURIComponent(last.id)}` : ""}`);
}

async function list(last) {
  const page = await listed("preferences", last);
  known = last ? [...known, ...page.data] : page.data;
  showKnown();
}

function showKnown() {
  $("count").textContent = total ? `${counted(total)}, the newest first.` : "Nothing yet. Choose an answer above.";
  $("known").replaceChildren(...known.map(knownRow));
  $("more").hidden = known.length >= total;
}

function entry(prompt, texts, actions) {
  const row = element("li");
  const last = element("p", "", "row");
  last.append(...actions);
  row.append(element("p", prompt, "prompt"), ...texts, last);
  return row;
}

const joined = (turns) => turns.map((turn) => turn.content).join("\n");

function knownRow(one) {
  const prompt = joined(one.prompt);
  const actions = [
    button("Edit", `Edit the preference on: ${prompt}`, () => edit(one)),
    button("Delete", `Delete the preference on: ${prompt}`, () => remove(one), "plain danger"),
  ];
  if (used.includes(one.id)) actions.push(element("span", "Used in the answer", "used"));
  return entry(prompt, [element("p", `You prefer: ${one.chosen}`), element("p", `over: ${one.rejected}`, "muted")], actions);
}

function remove(one) {
  return doing("known", async () => {
    await request("DELETE", `preferences/${one.id}`);
    known = known.filter((other) => other.id !== one.id);
    total -= 1;
    showKnown();
    say("The preference is deleted.");
    $("known-title").focus({ preventScroll: true });
    answer("fspo");
  });
}

// Saved conversations, which are listed while they are unfolded

const readingConversations = () => $("conversations").contains(document.activeElement);

// Quiet: after an answer. That must not take the keyboard's focus out of the list.
function listConversations(quiet = false) {
  if (!$("conversations-fold").open || (quiet && readingConversations())) return undefined;
  stale = true; // also for a listing that is under way: it repeats itself
  return doing("conversations", async () => {
    while (stale) {
      stale = false;
      const found = await wantedConversations();
      if (quiet && readingConversations()) return;
      conversations = found.data;
      $("more-conversations").hidden = !found.has_more;
      showConversations();
    }
  }, quiet);
}

async function wantedConversations() {
  let data = [];
  for (;;) {
    const page = await listed("conversations", data.at(-1), Math.min(wanted - data.length, MOST_LISTED));
    data = [...data, ...page.data];
    if (!page.has_more || data.length >= wanted) return { data, has_more: page.has_more };
  }
}

function moreConversations() {
  wanted = conversations.length + PAGE;
  return listConversations();
}

function showConversations() {
  $("no-conversations").hidden = conversations.length > 0 || !$("more-conversations").hidden;
  $("conversations").replaceChildren(...conversations.map((one) => {
    const prompt = joined(one.messages);
    const act = button("Delete", `Delete the conversation: ${prompt}`, () => removeConversation(one), "plain danger");
    return entry(prompt, [element("p", `The answer of ${one.model}: ${one.answer}`)], [act]);
  }));
}

function removeConversation(one) {
  return doing(`delete ${one.id}`, async () => {
    await request("DELETE", `conversations/${one.id}`);
    conversations = conversations.filter((other) => other.id !== one.id);
    if (judged?.id === one.id.replace("conv_", "chatcmpl-")) showJudging(null); // it can't be rated any more
    showConversations();
    say("The conversation is deleted. Preferences that followed from it stay.");
    $("conversations-title").focus({ preventScroll: true });
    listConversations(true); // those after it move up
  });
}

let edited = null;
function edit(one) {
  edited = one;
  $("edit-problem").textContent = "";
  // A prompt of several messages is not one text; its preference keeps it.
  $("edit-prompt").value = one.prompt.at(-1).content;
  $("edit-prompt").readOnly = one.prompt.length > 1;
  $("edit-chosen").value = one.chosen;
  $("edit-rejected").value = one.rejected;
  $("edit").showModal();
}

function saveEdit() {
  return doing("known", async () => {
    const change = { chosen: $("edit-chosen").value, rejected: $("edit-rejected").value };
    if (edited.prompt.length === 1) change.prompt = $("edit-prompt").value;
    let saved;
    try {
      saved = await json("PATCH", `preferences/${edited.id}`, change);
    } catch (error) {
      showIn("edit-problem", error);
      return;
    }
    $("edit").close();
    known = known.map((one) => (one.id === saved.id ? saved : one));
    showKnown();
    say("The preference is changed.");
    $("known-title").focus({ preventScroll: true });
    answer("fspo");
  });
}

function saveDescription() {
  return doing("description", async () => {
    await request("PATCH", "me", { description: $("description").value });
    say("Saved.");
    answer("fspo");
  });
}

// A switch ends as it is saved: it moves back if the server refuses, and what is clicked meanwhile is saved too.
function saveSwitch(field) {
  const box = $(field);
  return doing(field, async () => {
    let saved = !box.checked;
    try {
      while (box.checked !== saved) {
        const wanted = box.checked;
        await request("PATCH", "me", { [field]: wanted });
        saved = wanted;
      }
    } catch (error) {
      if (error.name !== "AbortError") box.checked = saved; // else it is the next person's
      throw error;
    }
    say("Saved.");
    // An answer that was not saved can't be rated; the next one can.
    if (field === "personalise" || (field === "keep_conversations" && saved)) answer("fspo");
    else showJudging(judged);
  });
}

function download() {
  return doing("export", async () => {
    const link = element("a");
    link.href = URL.createObjectURL(await ours((await request("GET", "me/export")).blob()));
    link.download = "fspo-export.zip";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
    say("The download has started.");
  });
}

let confirmed = null;
function confirmFirst(title, text, act) {
  $("confirm-title").textContent = title;
  $("confirm-text").textContent = text;
  confirmed = act;
  $("confirm").showModal();
  $("no").focus();
}

async function deletePreferences() {
  const { count } = await json("DELETE", "preferences");
  [known, total] = [[], 0];
  showKnown();
  say(`${counted(count)} deleted.`);
  $("known-title").focus({ preventScroll: true });
  answer("fspo");
}

async function deleteAll() {
  const done = await json("DELETE", "me");
  signOut();
  const trained = done.policies_to_train_again;
  say(["Everything of yours is deleted, and your keys with it.",
    done.erased ? "" : "The server erases the rest of its files within about a minute.",
    trained.length ? `These policies were trained on your preferences: ${trained.join(", ")}.` : ""].join(" "));
}

// Events

const onSubmit = (id, act) => $(id).addEventListener("submit", (event) => { event.preventDefault(); act(); });
const onClick = (id, act) => $(id).addEventListener("click", act);

onSubmit("sign-in", () => doing("enter", async () => {
  sessionStorage.setItem(KEY, $("key").value.trim());
  await enter();
}));
onSubmit("ask", () => { complain(""); answerBoth(); });
onSubmit("about", saveDescription);
onSubmit("edit-form", saveEdit);
onSubmit("rewriting-form", saveRewritten);
onClick("sign-out", () => { signOut(); complain(""); });
onClick("choose-1", () => choose(1));
onClick("choose-2", () => choose(2));
onClick("skip", skip);
onClick("more", () => doing("known", () => list(known.at(-1))));
onClick("more-conversations", moreConversations);
$("conversations-fold").addEventListener("toggle", () => listConversations());
onClick("export", download);
onClick("cancel", () => $("edit").close());
onClick("thumb-up", () => rate("up"));
onClick("thumb-down", () => rate("down"));
onClick("again", () => { complain(""); answer("fspo", true); });
onClick("better", () => doing("judge", () => judge(judged, { instead_of: judged.before })));
onClick("rewrite", openRewriting);
onClick("cancel-rewriting", () => $("rewriting").close());
onClick("swap", () => {
  [$("edit-chosen").value, $("edit-rejected").value] = [$("edit-rejected").value, $("edit-chosen").value];
});
onClick("no", () => $("confirm").close());
onClick("yes", () => { $("confirm").close(); doing("known", confirmed); });
onClick("delete-preferences", () => confirmFirst(
  "Delete all preferences?", "The server deletes all of them at once. This can't be undone.", deletePreferences));
onClick("delete-all", () => confirmFirst(
  "Delete everything?",
  "The server deletes your preferences, description, conversations and keys. You can't sign in again. This can't be undone.",
  deleteAll));
for (const field of SWITCHES) $(field).addEventListener("change", () => saveSwitch(field));
document.addEventListener("keydown", (event) => {
  const typing = event.target.closest?.("textarea, dialog, input:not([type=checkbox])");
  if (!["1", "2"].includes(event.key) || event.repeat || event.ctrlKey || event.altKey || event.metaKey || typing) return;
  if ($("keys").checked && !$("signed-in").hidden) choose(Number(event.key));
});

const showWelcome = () => { $("welcome").hidden = !$("signed-in").hidden; };
if (sessionStorage.getItem(KEY)) doing("enter", enter).finally(showWelcome);
else showWelcome();
