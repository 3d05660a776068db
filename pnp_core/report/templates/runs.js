"use strict";
// The token of `pnp-ovss view` goes on to the pages of the runs, in the fragment too. It may come later: an address
// that is opened in the tab of the page changes its fragment only.
function handOn() {
  const found = /^#token=[A-Za-z0-9_-]{20,100}$/.exec(location.hash)?.[0];
  if (found) sessionStorage.setItem("pnp-ovss runs", found);
  history.replaceState(null, "", location.pathname);
  const token = found ?? sessionStorage.getItem("pnp-ovss runs");
  if (token) for (const link of document.querySelectorAll("a.run")) link.hash = token;
}

handOn();
addEventListener("hashchange", handOn);
