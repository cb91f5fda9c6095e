/* The list below the title: a combobox as ARIA 1.2 describes it, filled during typing.

   The focus stays in the field; the arrow keys choose, Enter selects the chosen title, Escape closes the list. */
(() => {
  "use strict";
  const movies = window.vigiaMovies;
  const PAUSE = 150; // milliseconds without a key before a request

  /* Attaches suggestions to a field; a selection calls `taken` with {id, title}. */
  movies.suggest = (field, list, taken) => {
    let offered = [], chosen = -1, waiting = 0, asking = null;

    const close = () => {
      clearTimeout(waiting);
      if (asking) asking.abort();
      asking = null;
      list.hidden = true;
      list.replaceChildren();
      offered = [];
      choose(-1);
      field.setAttribute("aria-expanded", "false");
    };

    function choose(place) {
      chosen = place;
      [...list.children].forEach((item, number) => item.setAttribute("aria-selected", String(number === place)));
      if (place < 0) field.removeAttribute("aria-activedescendant");
      else {
        field.setAttribute("aria-activedescendant", list.children[place].id);
        list.children[place].scrollIntoView({ block: "nearest" });
      }
    }

    function take(place) {
      const movie = offered[place];
      field.value = movie.title;
      close();
      taken(movie);
    }

    function show(titles) {
      offered = titles;
      list.replaceChildren(...titles.map((movie, place) => {
        const item = movies.element("li", { role: "option", id: `mv-option-${place}`, "aria-selected": "false" },
          movies.element("span", {}, movie.title), movies.element("span", { class: "mv-year" }, movie.year || ""));
        // Keeps the focus in the field; losing it would close the list under the pointer.
        item.addEventListener("pointerdown", (event) => event.preventDefault());
        item.addEventListener("click", () => take(place));
        return item;
      }));
      choose(-1);
      list.hidden = titles.length === 0;
      field.setAttribute("aria-expanded", String(titles.length > 0));
    }

    async function look() {
      const typed = field.value.trim();
      if (asking) asking.abort();
      if (!typed) return close();
      asking = new AbortController();
      try {
        show(await movies.titles(typed, asking.signal));
      } catch (error) {
        // Recommendations work without suggestions, and the next request shows the error.
        if (error.name !== "AbortError") close();
      }
    }

    field.addEventListener("input", () => {
      clearTimeout(waiting);
      waiting = setTimeout(look, PAUSE);
    });
    field.addEventListener("blur", close);
    field.addEventListener("keydown", (event) => {
      const open = !list.hidden;
      if (event.key === "ArrowDown" || event.key === "ArrowUp") {
        event.preventDefault();
        const step = event.key === "ArrowDown" ? 1 : -1, places = offered.length + 1;
        if (open) choose(((chosen + 1 + step + places) % places) - 1);
        else look();
      } else if (event.key === "Escape" && open) {
        event.preventDefault();
        close();
      } else if (event.key === "Enter" && open && chosen >= 0) {
        event.preventDefault();
        take(chosen);
      }
    });
    if (document.activeElement === field) look(); // text typed before this script was loaded
    return close;
  };
})();
