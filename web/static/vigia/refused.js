/* Focuses the first invalid field of a rejected form. Browsers ignore `autofocus` if a script of the page set a
   focus earlier. */
"use strict";
document.querySelector("form [autofocus]")?.focus({ preventScroll: true });
