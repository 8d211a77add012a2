"use strict";
// Keys on the pages with a choice, and a look at the answers while they are written. Every page works without this.

const vote = document.getElementById("vote") ?? document.getElementById("next");
const undo = document.getElementById("undo");
const useKeys = document.getElementById("use-keys");
let sent = false;

function send(form) {
  if (sent || !form.reportValidity()) return;
  form.requestSubmit();
}

for (const form of document.forms) {
  form.addEventListener("submit", (event) => {
    if (sent) event.preventDefault(); // a second click of a double click
    sent = true;
  });
}
window.addEventListener("pageshow", () => { sent = false; });

if (useKeys !== null) {
  document.getElementById("keys").hidden = false;
  useKeys.checked = sessionStorage.getItem("keys") !== "off";
  useKeys.addEventListener("change", () => sessionStorage.setItem("keys", useKeys.checked ? "on" : "off"));
  document.addEventListener("keydown", (event) => {
    if (!useKeys.checked || event.repeat || event.ctrlKey || event.altKey || event.metaKey) return;
    const choice = vote?.querySelector(`input[name="choice"][value="${CSS.escape(event.key)}"]`);
    if (choice) {
      choice.checked = true;
      choice.focus();
      event.preventDefault();
    } else if (event.key === "Enter" && vote && !event.target.closest("a, button, summary, #undo")) {
      event.preventDefault();
      send(vote);
    } else if ((event.key === "u" || event.key === "U") && undo) {
      event.preventDefault();
      send(undo);
    }
  });
}

const waiting = document.getElementById("waiting");

async function look() {
  try {
    const reply = await fetch(waiting.dataset.state, { cache: "no-store" });
    const state = await reply.json();
    if (state.go) {
      location.reload();
      return;
    }
    waiting.querySelector("progress").value = state.done;
    waiting.querySelector("[role=status]").textContent = state.text;
  } catch {
    // The server may be starting again; the next look will show.
  }
  setTimeout(look, 1500);
}

if (waiting !== null) setTimeout(look, 1000);
