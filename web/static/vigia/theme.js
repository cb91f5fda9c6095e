/* Applies the theme chosen in the admin before the page is painted. Without a choice the system's theme applies. */
"use strict";
try {
  const chosen = JSON.parse(localStorage.getItem("adminTheme"));
  if (chosen === "dark" || chosen === "light") document.documentElement.className = chosen;
} catch { /* storage is blocked or holds invalid data */ }
