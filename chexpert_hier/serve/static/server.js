// What the page asks of the server it came from, and of nobody else.

let token = decodeURIComponent(new URLSearchParams(location.hash.slice(1)).get("token") ?? "");
if (token) history.replaceState(null, "", location.pathname); // it need not stay in the address bar

/** Ask, and give the answer's JSON; an Error says in words what is wrong. */
export async function ask(path, body = undefined) {
  for (;;) {
    let answer;
    try {
      answer = await fetch(path, {
        method: body === undefined ? "GET" : "POST", body, cache: "no-store",
        headers: token ? { Authorization: `Bearer ${token}` } : {},
      });
    } catch {
      throw new Error("the server does not answer; is it still running?");
    }
    if (answer.status === 401) {
      await askToken();
      continue;
    }
    let found;
    try {
      found = await answer.json();
    } catch {
      throw new Error(`the server's answer cannot be read (${answer.status})`);
    }
    if (!answer.ok) throw new Error(found.error ?? `the server refused (${answer.status})`);
    return found;
  }
}

let asking = null; // several films may find out at once

function askToken() {
  asking ??= new Promise((resolve) => {
    const dialog = document.getElementById("ask");
    dialog.addEventListener("close", () => {
      token = document.getElementById("token").value.trim();
      asking = null;
      resolve();
    }, { once: true });
    dialog.addEventListener("cancel", (event) => event.preventDefault());
    dialog.showModal();
  });
  return asking;
}
