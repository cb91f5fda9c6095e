/* Puts the cursor into the first wrong field of a refused form. Browsers pass `autofocus` over where a script
   of the page was quicker with a focus of its own. */
"use strict";
document.querySelector("form [autofocus]")?.focus({ preventScroll: true });
