/* The theme that a person chose in the admin, before the page is painted. Without a choice the system's holds. */
"use strict";
try {
  const chosen = JSON.parse(localStorage.getItem("adminTheme"));
  if (chosen === "dark" || chosen === "light") document.documentElement.className = chosen;
} catch { /* storage is blocked, or holds something else */ }
