"use strict";
// Each run that has a review has a token for it, which goes on to its page in the fragment of the link. The page keeps
// it for its tab, so each opens in one of its own. The list's own token may come later: an address that is opened in the
// tab of the page changes its fragment only.
async function handOn() {
  const found = /^#token=([A-Za-z0-9_-]{20,100})$/.exec(location.hash)?.[1];
  if (found) sessionStorage.setItem("pnp-ovss runs", found);
  history.replaceState(null, "", location.pathname);
  const token = found ?? sessionStorage.getItem("pnp-ovss runs");
  if (!token) return;
  const answer = await fetch("tokens.json", { headers: { "X-PnP-OVSS-Token": token }, cache: "no-store" });
  if (!answer.ok) return;
  const tokens = await answer.json();
  for (const link of document.querySelectorAll("a.run")) {
    const own = tokens[link.getAttribute("href")];
    if (own) link.hash = `token=${own}`;
  }
}

handOn();
addEventListener("hashchange", handOn);
