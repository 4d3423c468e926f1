// The script of the page. Text of the store becomes text nodes and attributes only, never markup.

const $ = (id) => document.getElementById(id);
const SVG = $("activity").namespaceURI;

/** Makes an element with properties and children. */
function h(tag, props = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (name in made && !name.includes("-")) made[name] = value;
    else if (value !== undefined && value !== false) made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

function svg(tag, attributes) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

const count = (number, one, many = one + "s") => `${number.toLocaleString("en")} ${number === 1 ? one : many}`;

function size(bytes) {
  if (bytes < 1024) return `${bytes} B`;
  const units = ["KiB", "MiB", "GiB", "TiB"];
  let at = -1;
  do { bytes /= 1024; at += 1; } while (bytes >= 1024 && at < units.length - 1);
  return `${bytes < 10 ? bytes.toFixed(1) : Math.round(bytes)} ${units[at]}`;
}

/** Returns a time in microseconds since 1970 as text, in UTC. */
const when = (us) => new Date(us / 1000).toISOString().replace("T", " ").replace(/(\.000)?Z$/, "");

function ago(us) {
  const seconds = Math.round(Date.now() / 1000 - us / 1e6);
  if (seconds < 0) return "in the future";
  if (seconds < 120) return `${seconds} s ago`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min ago`;
  if (seconds < 172800) return `${Math.round(seconds / 3600)} h ago`;
  return `${Math.round(seconds / 86400)} days ago`;
}

// ---- The server ----

class Refused extends Error {
  constructor(status, why) { super(why); this.status = status; }
}

async function call(name, params = {}) {
  const query = new URLSearchParams();
  for (const [key, value] of Object.entries(params)) {
    if (value !== undefined && value !== null && value !== "") query.set(key, value);
  }
  let reply;
  try {
    reply = await fetch(`api/${name}?${query}`);
  } catch {
    throw new Refused(0, "The server has ended. Start `codexdb view` again.");
  }
  if (!reply.ok) throw new Refused(reply.status, (await reply.text()).trim());
  return reply.json();
}

let hiding;
function fail(error) {
  $("error").textContent = error.message;
  $("error").hidden = false;
  clearTimeout(hiding);
  hiding = setTimeout(() => { $("error").hidden = true; }, 6000);
  if (!(error instanceof Refused)) console.error(error);
}

/** Runs the latest of many requests, one at a time: a newer one replaces those that wait. */
function latest(work) {
  let running = false, next = null;
  return async (...args) => {
    next = args;
    if (running) return;
    running = true;
    try {
      while (next) {
        const taken = next;
        next = null;
        try { await work(...taken); } catch (error) { fail(error); }
      }
    } finally { running = false; }
  };
}

// ---- The place: what is shown, in the part of the address behind `#` ----

const NAMES = ["table", "key", "prefix", "from", "to", "filter", "at", "map", "as"];
let store = null;
let place = { tab: "keys" };

function parse() {
  const [tab, query = ""] = location.hash.slice(1).split("?");
  const params = new URLSearchParams(query);
  const found = { tab: ["keys", "map", "changes", "health"].includes(tab) ? tab : "keys" };
  for (const name of NAMES) if (params.get(name)) found[name] = params.get(name);
  return found;
}

function address(of) {
  const params = new URLSearchParams();
  for (const name of NAMES) if (of[name]) params.set(name, of[name]);
  const query = params.toString();
  return "#" + of.tab + (query ? "?" + query : "");
}

/** Shows another place. `keep` makes no entry in the history of the browser. */
function go(change, keep = false) {
  const next = { ...place, ...change };
  const to = address(next);
  if (to === location.hash) return;
  history[keep ? "replaceState" : "pushState"](null, "", to);
  show(next);
}

/** Returns which list of keys is to be shown. */
function asked() {
  const { table, prefix, from, to, filter, at } = place;
  return JSON.stringify([table, prefix, from, to, filter, at]);
}

function show(next) {
  place = next;
  for (const tab of document.querySelectorAll("[role=tab]")) {
    const is = tab.dataset.tab === place.tab;
    tab.setAttribute("aria-selected", is);
    tab.tabIndex = is ? 0 : -1;
    $(tab.dataset.tab).hidden = !is;
  }
  time.show();
  if (place.tab === "keys") {
    if (keys.asked !== asked()) keys.load();
    else keys.draw();
    value.show();
  }
  if (place.tab === "map") map.load();
  if (place.tab === "changes") changes.load();
  if (place.tab === "health") health.load();
}

// ---- The list of keys ----

const ROW = 30, PAGE = 128, PAGES_MAX = 40;
// Browsers limit the height of an element. A longer list is scrolled in proportion.
const HEIGHT_MAX = 8_000_000;

const keys = {
  asked: null, id: 0, total: 0, seq: 0, cursor: -1, offset: 0, pages: new Map(), isScrolling: false,

  load: latest(async () => {
    const { table, prefix, from, to, filter, at, key } = place;
    keys.asked = asked();
    for (const name of ["prefix", "from", "to", "filter"]) {
      if (document.activeElement !== $(name)) $(name).value = place[name] ?? "";
    }
    if (prefix || from || to) $("range").open = true;
    let made;
    try {
      await tables.load(at);
      made = await call("list", { table, prefix, from, to, filter, at, key });
    } catch (error) {
      $("found").textContent = error.message;
      keys.reset({ list: 0, total: 0, seq: 0 });
      if (error.status !== 400) throw error;
      return;
    }
    keys.reset(made);
    $("found").textContent = count(made.total, "key") + (filter || prefix || from || to ? " found" : "") + tables.about(table);
    if (key) { keys.cursor = made.pos; keys.reveal(true); }
    keys.draw();
  }),

  reset({ list, total, seq }) {
    Object.assign(keys, { id: list, total, seq, cursor: -1, offset: 0 });
    keys.pages.clear();
    $("refresh").hidden = true;
    $("space").style.height = Math.min(total * ROW, HEIGHT_MAX) + "px";
    keys.scrollTo(0);
    keys.draw();
  },

  get view() { return $("list").clientHeight; },
  get end() { return Math.max(0, keys.total * ROW - keys.view); },
  get scale() {
    const real = Math.min(keys.total * ROW, HEIGHT_MAX) - keys.view;
    return real > 0 ? keys.end / real : 1;
  },

  /** Scrolls to a number of pixels of the whole list. */
  scrollTo(offset) {
    keys.offset = Math.max(0, Math.min(offset, keys.end));
    const top = Math.round(keys.offset / keys.scale);
    if (Math.round($("list").scrollTop) !== top) {
      keys.isScrolling = true;
      $("list").scrollTop = top;
    }
  },

  /** Brings the row of the cursor into view. */
  reveal(centred = false) {
    const top = keys.cursor * ROW;
    if (centred) keys.scrollTo(top - keys.view / 2);
    else if (top < keys.offset) keys.scrollTo(top);
    else if (top + ROW > keys.offset + keys.view) keys.scrollTo(top + ROW - keys.view);
  },

  row(at) {
    const page = Math.floor(at / PAGE);
    const rows = keys.pages.get(page);
    if (!rows) keys.fetch(page);
    return rows?.[at - page * PAGE];
  },

  async fetch(page) {
    const id = keys.id, rows = [];
    keys.pages.set(page, rows);
    if (keys.pages.size > PAGES_MAX) keys.pages.delete(keys.pages.keys().next().value);
    const end = Math.min((page + 1) * PAGE, keys.total);
    try {
      while (page * PAGE + rows.length < end && id === keys.id) {
        const start = page * PAGE + rows.length;
        const found = await call("page", { list: id, start, count: end - start });
        if (found.rows.length === 0) break;
        rows.push(...found.rows);
      }
    } catch (error) {
      if (id !== keys.id) return;
      // The server keeps a few lists only.
      if (error.status === 410) return keys.load();
      return fail(error);
    }
    if (id === keys.id) keys.draw();
  },

  draw() {
    if (place.tab !== "keys" || !keys.view) return;
    const first = Math.max(0, Math.floor(keys.offset / ROW) - 3);
    const last = Math.min(keys.total, Math.ceil((keys.offset + keys.view) / ROW) + 3);
    const top = $("list").scrollTop;
    const rows = [];
    for (let at = first; at < last; at++) {
      const row = keys.row(at);
      const isChosen = row ? row.key === place.key : at === keys.cursor;
      if (isChosen) keys.cursor = at;
      const made = h("div", { className: "row", role: "option", id: `row-${at}`, "aria-selected": isChosen,
        "aria-posinset": at + 1, "aria-setsize": keys.total, onclick: () => keys.choose(at) },
      h("span", { className: "key", textContent: row ? row.key || "(empty)" : "…", title: row?.key ?? "" }),
      row?.preview !== undefined && h("span", { className: "preview", textContent: row.preview }),
      h("span", { className: "size", textContent: row ? size(row.len) : "" }));
      made.style.transform = `translateY(${top + at * ROW - keys.offset}px)`;
      rows.push(made);
    }
    $("space").replaceChildren(...rows);
    $("list").setAttribute("aria-activedescendant", keys.cursor >= 0 ? `row-${keys.cursor}` : "");
  },

  choose(at) {
    if (at < 0 || at >= keys.total) return;
    keys.cursor = at;
    keys.reveal();
    const row = keys.row(at);
    if (row) go({ key: row.key, as: undefined }, true);
    else setTimeout(() => keys.cursor === at && keys.choose(at), 100);
    keys.draw();
  },
};

$("list").addEventListener("scroll", () => {
  if (keys.isScrolling) keys.isScrolling = false;
  else keys.offset = Math.min($("list").scrollTop * keys.scale, keys.end);
  keys.draw();
});
$("list").addEventListener("wheel", (event) => {
  if (keys.scale <= 1 || event.ctrlKey) return;
  event.preventDefault();
  const unit = event.deltaMode === 1 ? ROW : event.deltaMode === 2 ? keys.view : 1;
  keys.scrollTo(keys.offset + event.deltaY * unit);
  keys.draw();
}, { passive: false });
$("list").addEventListener("keydown", (event) => {
  const step = Math.max(1, Math.floor(keys.view / ROW) - 1);
  const to = { ArrowDown: keys.cursor + 1, ArrowUp: keys.cursor - 1, PageDown: keys.cursor + step,
    PageUp: keys.cursor - step, Home: 0, End: keys.total - 1 }[event.key];
  if (to !== undefined) {
    event.preventDefault();
    keys.choose(Math.max(0, Math.min(to, keys.total - 1)));
  } else if (event.key === "Enter") $("value").focus();
});
let typing;
$("query").addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(() => {
    const asked = {};
    for (const name of ["filter", "prefix", "from", "to"]) asked[name] = $(name).value || undefined;
    go(asked, true);
  }, 200);
});
$("query").addEventListener("submit", (event) => event.preventDefault());
$("refresh").addEventListener("click", () => { keys.load(); value.show(true); });
addEventListener("resize", () => { keys.draw(); if (place.tab === "map") map.draw(); });

// ---- Tables ----

const tables = {
  found: [],

  /** Shows the names of the tables of a state, if it has some. */
  async load(at) {
    tables.found = await call("tables", { at });
    $("which").hidden = tables.found.length === 0 && !place.table;
    const names = tables.found.map((table) => table.name);
    // A table that is chosen stays so at a commit before it was created.
    if (place.table && !names.includes(place.table)) names.push(place.table);
    $("table").replaceChildren(h("option", { value: "", textContent: "(keys outside tables)" }),
      ...names.map((name) => h("option", { value: name, textContent: name })));
    $("table").value = place.table ?? "";
  },

  /** Returns a description of a table. */
  about(name) {
    const table = tables.found.find((table) => table.name === name);
    if (!table) return "";
    const index = ({ name, kind, unique, building }) =>
      `${name} (${kind}${unique ? ", unique" : ""}${building ? ", not complete" : ""})`;
    const indexes = table.indexes.map(index).join(", ");
    return ` · ${table.kind}` + (indexes && ` · indexed by ${indexes}`);
  },
};

$("table").addEventListener("change", () => go({ tab: "keys", at: place.at, table: $("table").value || undefined,
  key: undefined, as: undefined, prefix: undefined, from: undefined, to: undefined, filter: undefined }));

// ---- One value ----

const value = {
  shown: null, history: null,

  show: latest(async (again) => {
    const { table, key, at, as } = place;
    const wanted = JSON.stringify([table, key, at, as]);
    if (!again && value.shown === wanted) return;
    value.shown = wanted;
    if (key === undefined) {
      return $("value").replaceChildren(h("p", { className: "note", textContent: "Choose a key to see its value." }));
    }
    value.draw(key, await call("value", { table, key, at, as }));
    if (store.ledger) value.past(table, key).catch(fail);
  }),

  draw(key, found) {
    const copy = (label, text) => h("button", { textContent: label, onclick: async (event) => {
      await navigator.clipboard.writeText(text());
      event.target.textContent = "Copied";
      setTimeout(() => { event.target.textContent = label; }, 1200);
    } });
    const facts = [], body = h("div", { id: "body" });
    const tools = h("div", { className: "tools" });
    if (found) {
      facts.push(found.codec, count(found.len, "byte"));
      if (found.expires_us !== null) facts.push(`expires ${when(found.expires_us)} UTC`);
      if (found.hidden) body.append(h("p", { className: "note", textContent: "The store is encrypted. Its values are shown if the page is started with --show-values." }));
      else value.ways(found, tools, body);
    } else {
      facts.push(place.at ? `not there after commit ${place.at}` : "no such key");
    }
    if (found && !found.hidden && found.codec !== "json") {
      const type = h("input", { value: place.as ?? "", placeholder: "as TYPE", title: "For example u64, or {name: str, stars: u32}", spellcheck: false, "aria-label": "Read the value as this type" });
      type.addEventListener("change", () => go({ as: type.value || undefined }, true));
      tools.append(type);
    }
    tools.append(h("span", { className: "grow" }), copy("Copy key", () => key), copy("Copy link", () => location.href));
    $("value").replaceChildren(h("div", { className: "title", textContent: key || "(empty)" }),
      h("div", { className: "facts" }, ...facts.map((fact) => h("span", { className: "badge", textContent: fact }))),
      tools, body, h("div", { id: "past" }));
    $("value").scrollTop = 0;
  },

  /** Adds the ways in which a value can be shown, and shows the first. */
  ways(found, tools, body) {
    const ways = [];
    let tree = null;
    if (found.read) {
      const about = found.read.guess ? "A guess, because the value does not name its type: " : "Read as ";
      try {
        const read = json(found.read.json);
        ways.push(["Typed", () => h("div", {}, h("p", { className: "faint" }, about, h("span", { className: "mono", textContent: found.read.type })),
          h("div", { className: "tree" }, node(read, null, 0)))]);
      } catch (error) { fail(error); }
    }
    if (found.unread) fail(new Refused(400, found.unread));
    if (found.text !== null && found.codec !== "bincode" && found.text.length <= 1 << 20) {
      try { tree = json(found.text); } catch { /* It is no JSON. */ }
    }
    const isWhole = found.text !== null && new TextEncoder().encode(found.text).length === found.len;
    if (tree && isWhole) ways.push(["Tree", () => h("div", { className: "tree" }, node(tree, null, 0))]);
    if (found.text !== null) {
      const rest = isWhole ? "" : "\n… the rest is too long for this page";
      ways.push(["Text", () => h("pre", { textContent: found.text + rest })]);
    }
    ways.push(["Hex", () => hex(found)]);
    const isText = found.text !== null && !/[\x00-\x08\x0e-\x1f]/.test(found.text);
    const first = ways[0][0] === "Typed" ? "Typed" : tree && isWhole ? "Tree" : isText && found.codec !== "bincode" ? "Text" : "Hex";
    const choice = h("div", { className: "choice", role: "group", "aria-label": "Show the value as" });
    const choose = (name) => {
      for (const button of choice.children) button.setAttribute("aria-pressed", button.textContent === name);
      body.replaceChildren(ways.find(([way]) => way === name)[1]());
    };
    choice.append(...ways.map(([name]) => h("button", { textContent: name, onclick: () => choose(name) })));
    tools.append(choice);
    choose(first);
  },

  /** Adds the changes of the key in a ledger. */
  async past(table, key) {
    const isKnown = value.history?.key === key && value.history.table === table;
    const found = isKnown ? value.history : { table, key, upto: 0, total: 0, rows: [] };
    // What is known of the past stays true, so only what came since is asked for.
    const after = found.upto;
    if (after < store.seq) {
      const { upto, total, rows } = await call("history", { table, key, after });
      // Another call may have added the same rows meanwhile.
      if (found.upto === after) Object.assign(found, { upto, total: found.total + total, rows: [...found.rows, ...rows].slice(-500) });
      value.history = found;
    }
    if (place.key !== key || place.table !== table || !$("past")) return;
    const at = Number(place.at ?? store.seq);
    const current = found.rows.filter((row) => row.seq <= at).at(-1);
    const items = found.rows.toReversed().map((row) => h("li",
      { className: (row.removed ? "removed" : "") + (row === current ? " is-now" : ""), "aria-current": row === current },
      h("button", { textContent: `commit ${row.seq} · ${when(row.time_us)}`, title: "Show the store after this commit", onclick: () => time.go(row.seq) }),
      h("div", { className: "preview mono" + (row.removed ? " removed" : ""), textContent: row.removed ? "removed" : row.preview ?? size(row.len) })));
    const more = found.total > found.rows.length ? `, the last ${found.rows.length} of ${found.total}` : "";
    $("past").replaceChildren(h("h2", { textContent: `History of this key: ${count(found.total, "change")}${more}` }),
      h("ol", { className: "past-list" }, ...items));
  },
};

function hex(found) {
  const shown = h("pre", { className: "hex" });
  const draw = ({ hex, offset }) => {
    const lines = [];
    for (let at = 0; at < hex.length; at += 32) {
      const bytes = hex.slice(at, at + 32).match(/../g);
      const text = bytes.map((byte) => { const c = parseInt(byte, 16); return c > 31 && c < 127 ? String.fromCharCode(c) : "."; });
      const digits = bytes.slice(0, 8).join(" ") + "  " + bytes.slice(8).join(" ");
      lines.push(`${(offset + at / 2).toString(16).padStart(8, "0")}  ${digits.padEnd(49)}  ${text.join("")}`);
    }
    shown.textContent = lines.join("\n") || "(empty)";
  };
  draw(found);
  const part = found.hex.length / 2;
  if (found.len <= part) return shown;
  const move = async (to) => {
    try {
      const next = await call("value", { table: place.table, key: found.key, at: place.at, offset: to });
      found = { ...found, offset: next.offset };
      draw(next);
      label.textContent = `bytes ${next.offset.toLocaleString("en")} to ${(next.offset + next.hex.length / 2).toLocaleString("en")} of ${next.len.toLocaleString("en")}`;
      [back.disabled, on.disabled] = [next.offset === 0, next.offset + next.hex.length / 2 >= next.len];
    } catch (error) { fail(error); }
  };
  const back = h("button", { textContent: "Before", disabled: true, onclick: () => move(Math.max(0, found.offset - part)) });
  const on = h("button", { textContent: "Next", onclick: () => move(found.offset + part) });
  const label = h("span", { className: "faint", textContent: `bytes 0 to ${part.toLocaleString("en")} of ${found.len.toLocaleString("en")}` });
  return h("div", {}, h("div", { className: "tools" }, back, on, label), shown);
}

/**
 * Parses JSON into nodes. Numbers keep their digits and objects their order, which `JSON.parse`
 * would change.
 */
function json(text) {
  let at = 0;
  const space = () => { while (" \t\n\r".includes(text[at]) && at < text.length) at += 1; };
  const take = (pattern) => {
    pattern.lastIndex = at;
    const found = pattern.exec(text);
    if (!found) throw new SyntaxError(`no JSON at ${at}`);
    at = pattern.lastIndex;
    return found[0];
  };
  const STRING = /"(?:[^"\\\u0000-\u001f]|\\.)*"/y, WORD = /true|false|null/y;
  const NUMBER = /-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?/y;
  const list = (close, item, depth) => {
    const items = [];
    at += 1;
    space();
    if (text[at] === close) { at += 1; return items; }
    for (;;) {
      items.push(item(depth + 1));
      space();
      const next = text[at++];
      if (next === close) return items;
      if (next !== ",") throw new SyntaxError(`no JSON at ${at}`);
    }
  };
  const field = (depth) => {
    space();
    const name = JSON.parse(take(STRING));
    space();
    if (text[at++] !== ":") throw new SyntaxError(`no JSON at ${at}`);
    return [name, any(depth)];
  };
  const any = (depth) => {
    if (depth > 200) throw new SyntaxError("too deep");
    space();
    const c = text[at];
    let made;
    if (c === "{") made = { type: "object", items: list("}", field, depth) };
    else if (c === "[") made = { type: "array", items: list("]", any, depth).map((item, n) => [n, item]) };
    else if (c === '"') made = { type: "string", text: JSON.parse(take(STRING)) };
    else if (c === "-" || (c >= "0" && c <= "9")) made = { type: "number", text: take(NUMBER) };
    else made = { type: "word", text: take(WORD) };
    return made;
  };
  const made = any(0);
  space();
  if (at < text.length) throw new SyntaxError(`no JSON at ${at}`);
  return made;
}

/** Returns a node of a tree. The parts of a node are made when it is opened. */
function node(of, name, depth) {
  const label = name === null ? null : h("span", { className: "name", textContent: typeof name === "number" ? `${name}` : JSON.stringify(name) });
  const colon = label && ": ";
  if (!of.items) {
    const text = of.type === "string" ? JSON.stringify(of.text) : of.text;
    return h("div", { className: "leaf" }, label, colon, h("span", { className: of.type, textContent: text }));
  }
  const [open, close] = of.type === "object" ? "{}" : "[]";
  if (of.items.length === 0) return h("div", { className: "leaf" }, label, colon, open + close);
  const inner = h("div");
  const made = h("details", {}, h("summary", {}, label, colon, open, h("span", { className: "count", textContent: ` ${of.items.length} ` }), close), inner);
  let from = 0;
  const more = () => {
    inner.querySelector(":scope > button")?.remove();
    const part = of.items.slice(from, from + 200);
    from += part.length;
    inner.append(...part.map(([key, item]) => node(item, key, depth + 1)));
    const left = of.items.length - from;
    if (left > 0) inner.append(h("button", { textContent: `${count(left, "more")}`.replace("mores", "more"), onclick: more }));
  };
  made.addEventListener("toggle", () => { if (made.open && from === 0) more(); });
  if (depth === 0 || (depth < 3 && of.items.length <= 12)) { made.open = true; more(); }
  return made;
}

// ---- Time: a ledger after any of its commits ----

const time = {
  oldest: 0, last: 0, isSet: false,

  async load() {
    const found = await call("time");
    [time.oldest, time.last, time.isSet] = [found.oldest, found.last, true];
    const bars = $("activity"), most = Math.max(1, ...found.buckets.map((bucket) => bucket.changes));
    const whole = Math.max(1, found.last - found.oldest);
    bars.setAttribute("viewBox", `0 0 ${whole} 100`);
    bars.replaceChildren(...found.buckets.map(({ seq, upto, changes }) => {
      // Few changes are seen beside many.
      const height = changes === 0 ? 0 : 8 + 92 * Math.log1p(changes) / Math.log1p(most);
      const width = Math.max(upto - seq + 1, whole / 300) * 0.86;
      return svg("rect", { x: seq - found.oldest - width, y: 100 - height, width, height });
    }));
    Object.assign($("slider"), { min: time.oldest, max: time.last });
    $("time").hidden = false;
    time.show();
  },

  /** Shows the store after a commit. */
  go(seq) {
    const at = Math.max(time.oldest, Math.min(seq, time.last));
    go({ at: at === time.last ? undefined : String(at) }, true);
  },

  show() {
    if (!time.isSet) return;
    const at = Number(place.at ?? time.last), isPast = place.at !== undefined;
    $("slider").value = at;
    $("time").classList.toggle("past", isPast);
    $("now").disabled = !isPast;
    $("earlier").disabled = at <= time.oldest;
    $("later").disabled = at >= time.last;
    time.tell(at, isPast);
  },

  tell: latest(async (at, isPast) => {
    const { time_us } = await call("moment", { at, count: 0 });
    const text = `Commit ${at.toLocaleString("en")} of ${time.last.toLocaleString("en")}`;
    const clock = time_us === null ? "before the first commit" : `${when(time_us)} UTC`;
    $("moment").replaceChildren(h("strong", { textContent: isPast ? text : `Now: commit ${at.toLocaleString("en")}` }), h("small", { textContent: clock }));
    $("slider").setAttribute("aria-valuetext", `${text}, ${clock}`);
  }),
};
$("slider").addEventListener("input", () => time.go(Number($("slider").value)));
$("earlier").addEventListener("click", () => time.go(Number(place.at ?? time.last) - 1));
$("later").addEventListener("click", () => time.go(Number(place.at ?? time.last) + 1));
$("now").addEventListener("click", () => time.go(time.last));

// ---- The map: prefixes by their bytes ----

const map = {
  found: null,

  load: latest(async () => {
    const prefix = place.map ?? "", separator = $("separator").value;
    map.found = await call("tree", { prefix, separator, at: place.at });
    map.draw();
  }),

  draw() {
    if (!map.found) return;
    const { prefix, keys: all, bytes, children, rest, tables } = map.found, separator = $("separator").value;
    const crumb = (label, to) => h("button", { textContent: label, onclick: () => go({ map: to || undefined }) });
    const crumbs = [crumb("All keys", "")];
    if (separator) {
      let to = "";
      for (const part of prefix.split(separator).slice(0, -1)) {
        to += part + separator;
        crumbs.push(" › ", crumb(part + separator, to));
      }
    }
    $("crumbs").replaceChildren(...crumbs);
    const tiles = children.map((child) => ({ ...child, area: child.bytes }));
    if (rest.keys > 0) tiles.push({ isRest: true, ...rest, area: rest.bytes });
    for (const table of tables) tiles.push({ isRest: true, ...table, area: table.bytes });
    tiles.sort((a, b) => b.area - a.area);
    const { clientWidth: width, clientHeight: height } = $("tiles");
    const made = squarified(tiles.filter((tile) => tile.area > 0), width, height).map(({ tile, x, y, w, h: tall }, n) => {
      const label = tile.table ?? (tile.isRest ? `${count(rest.groups, "more part")}` : tile.name.slice(prefix.length) || "(empty)");
      const share = `${size(tile.bytes)} · ${tile.isLeaf ? "one key" : count(tile.keys, "key")}`;
      const shown = h("button", { className: "tile" + (tile.isRest ? " rest" : "") + (w < 20 || tall < 14 ? " tiny" : ""), disabled: !!tile.isRest, title: `${tile.name ?? label}\n${share}`,
        onclick: () => go(tile.isLeaf ? { tab: "keys", table: undefined, key: tile.name, prefix: prefix || undefined, filter: undefined, from: undefined, to: undefined } : { map: tile.name }) },
      w > 46 && tall > 22 && h("b", { textContent: label }), w > 80 && tall > 42 && h("span", { textContent: share }));
      Object.assign(shown.style, { left: `${x}px`, top: `${y}px`, width: `${w}px`, height: `${tall}px` });
      if (!tile.isRest) shown.style.background = `hsl(${hue(tile.name)} 42% var(${tile.isLeaf ? "--shade" : "--tone"}))`;
      return shown;
    });
    $("tiles").replaceChildren(...made);
    const more = h("button", { textContent: "Show these keys", onclick: () => go({ tab: "keys", table: undefined, prefix: prefix || undefined, filter: undefined, from: undefined, to: undefined, key: undefined }) });
    $("about-map").replaceChildren(`${count(all, "key")}, ${size(bytes)} of keys and values. `, more);
  },
};
let separating;
$("separator").addEventListener("input", () => {
  clearTimeout(separating);
  separating = setTimeout(() => (place.map ? go({ map: undefined }) : map.load()), 250);
});

/** Returns a colour for a name, which stays the same. */
function hue(name) {
  let sum = 7;
  for (const c of name) sum = (sum * 31 + c.codePointAt(0)) % 360;
  return sum;
}

/** Divides a rectangle among tiles so that they are close to squares (Bruls, Huizing, van Wijk). */
function squarified(tiles, width, height) {
  const made = [];
  const total = tiles.reduce((sum, tile) => sum + tile.area, 0);
  const left = tiles.map((tile) => ({ tile, area: tile.area / total * width * height }));
  let [x, y, w, tall] = [0, 0, width, height];
  while (left.length > 0) {
    const side = Math.max(1, Math.min(w, tall));
    const worst = (row, sum) => Math.max(...row.map(({ area }) => Math.max(side * side * area / (sum * sum), sum * sum / (side * side * area))));
    const row = [left.shift()];
    let sum = row[0].area;
    while (left.length > 0 && worst([...row, left[0]], sum + left[0].area) <= worst(row, sum)) {
      row.push(left.shift());
      sum += row.at(-1).area;
    }
    const thick = sum / side;
    let along = 0;
    for (const { tile, area } of row) {
      const long = area / thick;
      made.push(w >= tall ? { tile, x, y: y + along, w: thick, h: long } : { tile, x: x + along, y, w: long, h: thick });
      along += long;
    }
    if (w >= tall) { x += thick; w -= thick; } else { y += thick; tall -= thick; }
  }
  return made;
}

// ---- What changed ----

const changes = {
  load: latest(async () => {
    const at = Number(place.at ?? time.last);
    const moment = await call("moment", { at });
    const cards = [changes.card(at === time.oldest && moment.time_us === null ? "The ledger begins here" : `In commit ${at.toLocaleString("en")}`,
      moment.time_us === null ? "" : `${when(moment.time_us)} UTC, ${ago(moment.time_us)}`, moment, null)];
    if (place.at !== undefined) {
      const since = await call("diff", { at });
      cards.push(changes.card("Since then", `to commit ${since.upto.toLocaleString("en")}`, since, async (after) => call("diff", { at, after })));
    }
    $("changes").replaceChildren(...cards);
  }),

  card(title, when, found, next) {
    const body = h("tbody");
    const add = (rows) => body.append(...rows.map((row) => h("tr", {},
      h("td", { className: row.change, textContent: row.change }),
      h("td", {}, h("button", { className: "link", textContent: row.key || "(empty)", onclick: () => go({ tab: "keys", table: undefined, key: row.key, prefix: undefined, filter: undefined, from: undefined, to: undefined }) })),
      h("td", { className: "preview", textContent: row.before ?? "" }), h("td", { className: "preview", textContent: row.after ?? "" }))));
    add(found.rows);
    const kinds = ["added", "changed", "removed"].filter((kind) => found[kind] > 0).map((kind) => h("span", { className: `badge ${kind}`, textContent: `${found[kind].toLocaleString("en")} ${kind}` }));
    if (found.in_tables) kinds.push(h("span", { className: "badge", textContent: `${found.in_tables.toLocaleString("en")} in tables` }));
    if (found.cleared) kinds.push(h("span", { className: "badge removed", textContent: "all keys removed first" }));
    const more = h("button", { textContent: "Show more", hidden: !found.next, onclick: async () => {
      try {
        const rest = await next(found.next);
        add(rest.rows);
        found.next = rest.next;
        more.hidden = !rest.next;
      } catch (error) { fail(error); }
    } });
    const isShort = !next && found.rows.length < found.added + found.changed + found.removed;
    return h("div", { className: "card" }, h("p", { className: "lead" }, h("strong", { textContent: title }), " ", h("span", { className: "faint", textContent: when })),
      h("div", { className: "facts" }, ...(kinds.length ? kinds : [h("span", { className: "faint", textContent: "nothing changed" })])),
      found.rows.length > 0 && h("table", {}, h("thead", {}, h("tr", {}, ...["", "Key", "Before", "After"].map((name) => h("th", { textContent: name })))), body),
      more, isShort && h("p", { className: "faint", textContent: `The first ${found.rows.length} are shown.` }));
  },
};

// ---- Health ----

const health = {
  samples: [], seen: null,

  load: latest(async () => {
    const found = await call("health");
    const now = performance.now() / 1000, before = health.seen;
    if (before && now > before.now) {
      health.samples.push(Math.max(0, (found.seq - before.seq) / (now - before.now)));
      if (health.samples.length > 150) health.samples.shift();
    }
    if (!before || now - before.now >= 1) health.seen = { now, seq: found.seq };
    if (place.tab === "health") health.draw(found);
  }),

  draw(found) {
    const card = (title, figure, note, ...more) => h("div", { className: "card" }, h("h2", { textContent: title }),
      figure instanceof Node ? figure : h("div", { className: "figure", textContent: figure }), h("p", { className: "faint", textContent: note }), ...more);
    const rate = health.samples.at(-1);
    const perSync = found.syncs > 0 ? found.commits / found.syncs : null;
    const files = found.image_bytes + found.log_bytes;
    const meter = h("div", { className: "meter" }, h("i"), h("i"));
    const part = files > 0 ? 100 * found.image_bytes / files : 0;
    [...meter.children].forEach((half, n) => { half.style.width = (files === 0 ? 0 : n ? 100 - part : part) + "%"; });
    const digits = (n) => n >= 100 ? Math.round(n).toLocaleString("en") : n >= 10 ? n.toFixed(1) : n.toFixed(2);
    const isOpen = found.writes !== "read-only";
    const none = "opened read-only: it makes no commits";
    const cards = h("div", { className: "cards" },
      card("State", h("div", { className: "figure " + (found.is_well ? "well" : "ill"), textContent: found.is_well ? "Well" : "Look here" }), found.writes, ...found.errors.map((error) => h("p", { className: "removed", textContent: error }))),
      card("Commits a second", !isOpen ? "–" : rate === undefined ? "…" : digits(rate), isOpen ? `${count(found.commits, "commit")} since the store was opened` : none, isOpen ? health.spark() : null),
      card("Commits per sync", perSync === null ? "–" : digits(perSync), isOpen ? `${count(found.groups, "group")}, ${count(found.syncs, "sync")}; the largest group had ${count(found.group_commits_max, "commit")}` : none),
      card("Longest hold of the memory lock", found.data_hold_ns_max === 0 ? "–" : `${digits(found.data_hold_ns_max / 1000)} µs`, isOpen ? "the longest time for which readers waited" : none),
      card("Entries", found.keys.toLocaleString("en"), `${found.expiring.toLocaleString("en")} expire, ${found.swept.toLocaleString("en")} were removed after they had`),
      card("Checkpoints", found.checkpoints.toLocaleString("en"), found.checkpoint_failures ? `${found.checkpoint_failures} failed` : "none failed"));
    const log = h("div", { className: "card" }, h("h2", { textContent: "Log and image" }), meter,
      h("p", {}, h("span", { className: "key-of" }), `image ${size(found.image_bytes)}   `, " ", h("span", { className: "key-of log" }), `log ${size(found.log_bytes)}`),
      h("p", { className: "faint", textContent: found.form === "ledger" ? "A ledger is a log alone: it keeps every commit." : "A checkpoint writes the state into a new image, and the log begins again." }));
    $("health").replaceChildren(cards, log, health.backups(found));
  },

  spark() {
    const most = Math.max(1, ...health.samples), made = svg("svg", { viewBox: "0 0 149 44", preserveAspectRatio: "none", class: "spark", "aria-hidden": "true" });
    const first = 150 - health.samples.length;
    made.append(svg("polyline", { points: health.samples.map((n, at) => `${first + at - 1},${43 - 42 * n / most}`).join(" ") }));
    return made;
  },

  backups({ backups, now_us }) {
    const card = h("div", { className: "card" }, h("h2", { textContent: "Backups" }));
    if (backups.length === 0) {
      card.append(h("p", { className: "faint", textContent: "There are none beside the store." }));
      return card;
    }
    const times = backups.map((backup) => backup.time_us).filter((us) => us !== null);
    if (times.length > 0) {
      const from = Math.min(...times), line = h("div", { className: "line" });
      const spot = (us) => `${100 * (us - from) / Math.max(1, now_us - from)}%`;
      for (const { index, time_us, error } of backups) {
        if (time_us === null) continue;
        const mark = h("i", { className: error ? "bad" : "", title: `backup ${index}: ${when(time_us)} UTC` });
        mark.style.left = spot(time_us);
        line.append(mark);
      }
      line.append(h("span", { textContent: `${when(from)} UTC` }), h("span", { className: "end", textContent: "now" }));
      card.append(line);
    }
    card.append(h("table", {}, h("thead", {}, h("tr", {}, ...["", "State of", "Commit", "Size", ""].map((name) => h("th", { textContent: name, className: ["Commit", "Size"].includes(name) ? "number" : "" })))),
      h("tbody", {}, ...backups.map((backup) => h("tr", {}, h("td", { textContent: `.bak.${backup.index}` }),
        h("td", { textContent: backup.time_us === null ? "" : `${when(backup.time_us)} UTC, ${ago(backup.time_us)}` }),
        h("td", { className: "number", textContent: backup.seq?.toLocaleString("en") ?? "" }), h("td", { className: "number", textContent: size(backup.size) }),
        h("td", { className: "removed", textContent: backup.error ?? "" }))))));
    return card;
  },
};

// ---- The start ----

for (const tab of document.querySelectorAll("[role=tab]")) {
  tab.addEventListener("click", () => go({ tab: tab.dataset.tab }));
  tab.addEventListener("keydown", (event) => {
    const shown = [...document.querySelectorAll("[role=tab]:not([hidden])")];
    const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!by) return;
    const next = shown[(shown.indexOf(tab) + by + shown.length) % shown.length];
    next.focus();
    next.click();
  });
}
addEventListener("keydown", (event) => {
  if (event.key === "/" && !/^(INPUT|TEXTAREA)$/.test(document.activeElement?.tagName)) {
    event.preventDefault();
    go({ tab: "keys" });
    $("filter").focus();
  }
});
addEventListener("popstate", () => show(parse()));

function about() {
  const badge = (text, strong) => h("span", { className: "badge" + (strong ? " strong" : ""), textContent: text });
  document.title = `${store.name} · CodexDB`;
  $("name").textContent = store.name;
  $("name").title = store.path;
  $("badges").replaceChildren(...[badge(count(store.keys, "key"), true), badge(`commit ${store.seq.toLocaleString("en")}`, true), store.form && badge(store.form),
    store.encrypted && badge(store.values ? "encrypted" : "encrypted, values hidden"), !store.live && badge("read-only")].filter(Boolean));
}

/** Looks for new commits, and for the health if it is shown. */
async function look() {
  if (!document.hidden) {
    try {
      store = await call("store");
      about();
      const isOld = place.at === undefined && keys.id > 0 && keys.seq < store.seq;
      $("refresh").hidden = !isOld;
      if (isOld) $("refresh").textContent = `Refresh: ${count(store.seq - keys.seq, "new commit")}`;
      if (store.ledger && time.isSet && store.seq > time.last) await time.load();
      if (place.tab === "health") health.load();
    } catch (error) { fail(error); }
  }
  setTimeout(look, store?.live ? 2000 : 20000);
}

try {
  store = await call("store");
  about();
  $("separator").value = store.separator;
  if (store.ledger) {
    document.querySelector("[data-tab=changes]").hidden = false;
    await time.load();
  }
  show(parse());
  setTimeout(look, 1500);
} catch (error) { fail(error); }
