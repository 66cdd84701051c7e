// The chat page. Names and texts come from others: they only ever become text nodes.
"use strict";

const $ = (id) => document.getElementById(id);
const body = document.body;
const text = $("text");
const messages = $("messages");
const scroller = $("scroller");

const SAME_BREATH = 5 * 60 * 1000; // messages of one person this close together stand together
const MOST_SHOWN = 1000;
const FIRST_DELAY = 500;
const LONGEST_DELAY = 15000;

let me = null;
let socket = null;
let leaving = false;
let failures = 0;
let countdown = null;
let unread = 0;
let lastDay = null;
let following = true; // the newest message is in view, and stays so
const online = new Set();
const heard = new Set(); // ids of messages shown: the history repeats them after a reconnect
const unsent = new Map(); // key -> { text, item }: not yet heard back from the server
let underWay = null; // the key among them that was sent on this connection

// ---- The connection -------------------------------------------------------------------------

function open() {
  socket = new WebSocket(`wss://${location.host}/chat`);
  socket.onmessage = (event) => receive(JSON.parse(event.data));
  socket.onclose = closed;
}

function receive(message) {
  switch (message.type) {
    case "welcome":
      welcome(message);
      break;
    case "said":
      hear(message);
      break;
    case "joined":
      online.add(message.name);
      showOnline();
      break;
    case "left":
      online.delete(message.name);
      showOnline();
      break;
    case "wait":
      setTimeout(sendAgain, message.seconds * 1000);
      break;
  }
}

function welcome(message) {
  me = message.you;
  failures = 0;
  show("open", "Connected");
  online.clear();
  for (const name of message.online) online.add(name);
  showOnline();
  for (const said of message.history) hear(said);
  sendAgain();
}

function closed(event) {
  socket = null;
  if (leaving) return;
  // After a log-out elsewhere the answer to "who am I" leads to the login page.
  if (event.code === 1008 && event.reason === "logged out") reconnect();
  else later();
}

function later() {
  const limit = Math.min(LONGEST_DELAY, FIRST_DELAY * 2 ** failures);
  failures += 1;
  // At random between half and all of it, so that the pages do not come back in step.
  const when = Date.now() + limit * (0.5 + Math.random() / 2);
  show("lost", "Connection lost");
  clearInterval(countdown);
  const tick = () => {
    const left = when - Date.now();
    if (left <= 0) reconnect();
    else $("countdown").textContent = `Trying again in ${Math.ceil(left / 1000)} s`;
  };
  countdown = setInterval(tick, 250);
  tick();
}

// A refused WebSocket tells a page nothing of the reason. So the page asks who it is first:
// no answer is a server that is away; an answer without a name, a session that is over.
async function reconnect() {
  clearInterval(countdown);
  countdown = null;
  $("countdown").textContent = "Trying now";
  let who;
  try {
    const answer = await fetch("/me", { cache: "no-store" });
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    who = await answer.json();
  } catch {
    later();
    return;
  }
  if (leaving) return;
  if (who.name === null) leave("/login?over");
  else if (me !== null && who.name !== me) leave("/"); // another user logged in in this browser
  else open();
}

function leave(path) {
  leaving = true;
  location.replace(path);
}

function retryNow() {
  if (countdown !== null) reconnect();
}

// ---- What is said ---------------------------------------------------------------------------

function say(words) {
  const key = crypto.randomUUID();
  const item = messageItem(me ?? "", words, null);
  item.classList.add("pending");
  messages.append(item);
  unsent.set(key, { text: words, item });
  arrange();
  toBottom();
  sendNext();
}

// One at a time, each when the one before was heard back: in order, and at the server's pace.
function sendNext() {
  const [key] = unsent.keys();
  if (key === undefined || underWay !== null || me === null) return;
  if (socket === null || socket.readyState !== WebSocket.OPEN) return;
  underWay = key;
  socket.send(JSON.stringify({ type: "say", key, text: unsent.get(key).text }));
}

function sendAgain() {
  underWay = null;
  sendNext();
}

function hear(said) {
  const mine = said.name === me && unsent.get(said.key);
  if (mine) {
    mine.item.remove();
    unsent.delete(said.key);
  }
  if (!heard.has(said.id)) {
    heard.add(said.id);
    append(said);
    if (following || mine) toBottom();
    else $("newer").hidden = false;
    if (document.hidden && !mine) showUnread(unread + 1);
  }
  if (mine) sendAgain();
}

// ---- What is shown --------------------------------------------------------------------------

function element(name, className, content = "") {
  const made = document.createElement(name);
  made.className = className;
  made.textContent = content;
  return made;
}

function avatar(name) {
  let sum = 0;
  for (const character of name) sum = (sum * 31 + character.codePointAt(0)) % 997;
  const made = element("span", `avatar hue-${sum % 8}`, name.slice(0, 1));
  made.setAttribute("aria-hidden", "true");
  return made;
}

function append(said) {
  const when = new Date(said.at);
  const before = messages.querySelector(".pending"); // what is not sent yet stays at the end
  const today = day.format(when);
  if (today !== lastDay) {
    const label = today === day.format(new Date()) ? "Today" : today;
    messages.insertBefore(element("li", "day", label), before);
  }
  lastDay = today;
  messages.insertBefore(messageItem(said.name, said.text, when), before);
  while (messages.childElementCount > MOST_SHOWN) messages.firstElementChild.remove();
  arrange();
}

function messageItem(name, words, when) {
  const item = element("li", "message");
  item.dataset.name = name;
  item.classList.toggle("mine", when === null || name === me);
  const bubble = element("div", "bubble");
  bubble.append(element("span", "text", words));
  if (when === null) {
    bubble.append(element("span", "waiting", "not sent yet"));
  } else {
    item.dataset.at = when.getTime();
    const time = element("time", "", clock.format(when));
    time.dateTime = when.toISOString();
    time.title = dayAndTime.format(when);
    bubble.append(time);
  }
  item.append(avatar(name), element("span", "name", name), bubble);
  return item;
}

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const day = new Intl.DateTimeFormat(undefined, { weekday: "long", day: "numeric", month: "long" });
const dayAndTime = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "medium" });

// Who stands together with the neighbours. Only the last few can have changed.
function arrange() {
  $("empty").hidden = messages.childElementCount > 0;
  const items = [...messages.children].slice(-unsent.size - 3);
  for (const [index, item] of items.entries()) {
    const before = items[index - 1];
    if (before === undefined) continue;
    const apart = (item.dataset.at ?? Date.now()) - (before.dataset.at ?? Date.now());
    const follows = before.dataset.name === item.dataset.name && apart < SAME_BREATH;
    item.classList.toggle("follows", follows);
    before.classList.toggle("followed", follows);
  }
}

function showOnline() {
  const names = [...online].sort();
  $("online-count").textContent = names.length > 0 ? names.length : "";
  $("online").replaceChildren(
    ...names.map((name) => {
      const item = element("li", "");
      item.append(avatar(name), element("span", "name", name));
      if (name === me) item.append(element("span", "you", "you"));
      return item;
    }),
  );
}

function show(connection, words) {
  body.dataset.connection = connection;
  $("state").textContent = words;
  $("notice").hidden = connection !== "lost";
  const explanation = "You can go on writing: it is sent when the connection is back.";
  if (connection !== "lost") $("notice-text").textContent = "";
  else if ($("notice-text").textContent === "") {
    // A live region is read out when it changes while it is visible.
    $("notice-text").textContent = `Connection lost. ${explanation}`;
  }
}

function showUnread(count) {
  unread = count;
  document.title = count > 0 ? `(${count}) Chat` : "Chat";
}

function atBottom() {
  return scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < 60;
}

function toBottom() {
  scroller.scrollTop = scroller.scrollHeight;
  $("newer").hidden = true;
}

function fitComposer() {
  text.style.height = "auto";
  text.style.height = `${text.scrollHeight + 2}px`;
}

// ---- What people do -------------------------------------------------------------------------

$("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  const words = text.value.trim();
  if (words !== "") {
    text.value = "";
    fitComposer();
    say(words);
  }
  text.focus();
});

text.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    $("composer").requestSubmit();
  }
});
text.addEventListener("input", fitComposer);

// The room grows and shrinks: a keyboard on a phone, the notice, a long text being written.
scroller.addEventListener("scroll", () => {
  following = atBottom();
  if (following) $("newer").hidden = true;
});
new ResizeObserver(() => {
  if (following) toBottom();
}).observe(scroller);
$("newer").addEventListener("click", toBottom);
$("retry").addEventListener("click", retryNow);
$("logout").addEventListener("submit", () => {
  leaving = true;
});

addEventListener("online", retryNow);
document.addEventListener("visibilitychange", () => {
  if (document.hidden) return;
  showUnread(0);
  retryNow();
});

open();
if (matchMedia("(pointer: fine)").matches) text.focus();
