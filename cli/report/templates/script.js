"use strict";
(() => {
  const one = (selector, within = document) => within.querySelector(selector);
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];

  function expand(button, open) {
    button.setAttribute("aria-expanded", String(open));
    document.getElementById(button.getAttribute("aria-controls")).hidden = !open;
  }

  function addOlder(table, count) {
    for (const part of all(`template.later[data-table="${table}"]`).slice(0, count)) {
      one(`#${table} > tbody`).append(part.content);
      part.remove();
    }
    tellOlder();
  }

  function tellOlder() {
    for (const button of all("button.older")) {
      const rows = all(`#${button.dataset.table} > tbody > tr:not(.detail)`).length;
      const left = Number(button.dataset.total) - rows;
      button.hidden = left <= 0;
      button.textContent = `Show older ones (${left} more)`;
    }
  }

  function filter() {
    const find = one("#find").value.trim().toLowerCase();
    const result = one("#result").value, move = one("#move").value;
    if (find || result || move) addOlder("log", Infinity);
    let shown = 0;
    const rows = all("#log tr.switch");
    for (const row of rows) {
      const fits = (!result || row.dataset.result === result)
        && (!move || row.dataset.move === move)
        && (!find || row.textContent.toLowerCase().includes(find));
      row.hidden = !fits;
      shown += fits;
      const button = one("button.more", row);
      if (button && !fits) expand(button, false);
    }
    one("#shown").textContent = find || result || move ? `${shown} of ${rows.length} shown` : "";
  }

  function prepare() {
    for (const box of all(".drawing .scroll")) box.scrollLeft = box.scrollWidth;
    const bar = one(".filter");
    if (bar) bar.hidden = false;
    tellOlder();
  }

  document.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    if (button.matches(".older")) addOlder(button.dataset.table, 1);
    else if (button.matches(".more")) expand(button, button.getAttribute("aria-expanded") !== "true");
  });
  document.addEventListener("input", (event) => {
    if (event.target.closest(".filter")) filter();
  });
  document.addEventListener("toggle", (event) => {
    for (const box of all(".drawing .scroll", event.target)) box.scrollLeft = box.scrollWidth;
  }, true);
  prepare();

  // Served live: follow the running switch; when the ledger has grown, load the content again.
  let known = document.body.dataset.served;
  if (known === undefined) return;

  function showRunning(running) {
    const panel = one("#running");
    panel.hidden = !running;
    if (!running) return;
    const says = `${running.move}: ${running.from || "nothing"} to ${running.to}, for ${running.seconds} s`;
    one("#running-h").textContent = running.reverting ? "A switch is being reverted" : "A switch is running";
    one("#running-says").textContent = says;
    one("#running-steps").replaceChildren(...running.steps.map((step) => {
      const item = document.createElement("li");
      item.textContent = step.name;
      if (step.state === "now") item.setAttribute("aria-current", "step");
      else item.className = step.state;
      return item;
    }));
    const log = one("#running-log"), text = running.said.join("\n");
    if (log.textContent !== text) {
      log.textContent = text;
      log.scrollTop = log.scrollHeight;
    }
  }

  async function reload() {
    const open = all("#content details[open]").map((d) => d.id).filter(Boolean);
    const focus = document.activeElement && document.activeElement.id;
    const fresh = new DOMParser().parseFromString(await (await fetch("./")).text(), "text/html");
    one("#content").replaceWith(fresh.querySelector("#content"));
    for (const name of ["header", "footer"]) one(name).replaceWith(fresh.querySelector(name));
    document.title = fresh.title;
    for (const id of open) if (document.getElementById(id)) document.getElementById(id).open = true;
    if (focus && document.getElementById(focus)) document.getElementById(focus).focus();
    prepare();
  }

  async function look() {
    try {
      const answer = await fetch("status.json", { cache: "no-store" });
      const status = await answer.json();
      showRunning(status.running);
      if (String(status.seq) !== known) {
        known = String(status.seq);
        await reload();
      }
    } catch {
      one("#running").hidden = true;
    }
    setTimeout(look, 1000);
  }
  look();
})();
