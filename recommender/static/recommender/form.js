/* The form of the page on movies: what it asks, and showing a question that came from elsewhere. */
(() => {
  "use strict";
  const movies = window.vigiaMovies;
  const find = (id) => document.getElementById(id);
  const form = find("mv-form"), given = form.elements, filterBox = form.querySelector(".mv-filters");
  const fields = { title: find("mv-title"), text: find("mv-text") };
  const genres = () => [...form.querySelectorAll("[name=genre]")];

  const number = (field) => (field.value === "" ? null : Number(field.value));

  const filters = () => ({
    genres: genres().filter((box) => box.checked).map((box) => box.value),
    from: number(given.from), to: number(given.to), language: given.language.value, varied: Number(given.varied.value),
  });

  function switchTo(wanted) {
    given.mode.value = wanted;
    for (const box of form.querySelectorAll("[data-mode]")) {
      const on = box.dataset.mode === wanted;
      box.hidden = !on;
      Object.assign(fields[box.dataset.mode], { disabled: !on, required: on });
    }
  }

  /* Genres of an address that the page did not offer. */
  function offer(names) {
    const place = form.querySelector(".mv-genres");
    if (!place) return;
    for (const name of names) {
      const box = movies.element("input", { type: "checkbox", name: "genre", value: name, checked: "" });
      place.append(movies.element("label", {}, box, " ", movies.element("span", {}, name)));
    }
  }

  function setFilters(question) {
    const wanted = new Set(question.genres.map((genre) => genre.toLowerCase()));
    for (const box of genres()) box.checked = wanted.delete(box.value.toLowerCase());
    if (wanted.size) offer(question.genres.filter((genre) => wanted.has(genre.toLowerCase())));
    const offered = [...given.language.options].some((option) => option.value === question.language);
    if (!offered) given.language.add(new Option(question.language, question.language));
    given.from.value = question.from || "";
    given.to.value = question.to || "";
    given.language.value = question.language;
    given.varied.value = question.varied;
    describe();
  }

  /* What the filters say of themselves. */
  function describe() {
    const set = filters(), varied = set.varied;
    const many = set.genres.length + Boolean(set.from) + Boolean(set.to) + Boolean(set.language) + Boolean(varied);
    Object.assign(find("mv-filtered"), { hidden: !many, textContent: `${many} set` });
    find("mv-clear").hidden = !many;
    const said = !varied ? "the closest, however alike"
      : varied < 0.35 ? "a little less alike" : varied < 0.65 ? "less alike" : "as different as can be";
    find("mv-varied-said").textContent = said;
    given.varied.setAttribute("aria-valuetext", said);
    const wrong = set.from && set.to && set.from > set.to;
    given.to.setCustomValidity(wrong ? "the last year is before the first" : "");
  }

  /* Language codes become names, where the browser knows them. */
  function nameLanguages() {
    const names = new Intl.DisplayNames(["en"], { type: "language" });
    for (const option of given.language.options) {
      try {
        if (option.value) option.textContent = names.of(option.value);
      } catch { /* no code of any language: it stays as the catalogue has it */ }
    }
  }

  /* `ask` is called with a question and the words of it, `refine` when a filter has changed. */
  movies.form = ({ ask, refine }) => {
    const close = movies.suggest(fields.title, find("mv-suggestions"), (movie) => ask({ ...filters(), movie: movie.id }, movie.title));
    const valid = () => {
      if (filterBox.querySelector(":invalid")) filterBox.open = true; // else the browser cannot show what is wrong
      return form.reportValidity();
    };
    const changed = () => {
      describe();
      if (!filterBox.querySelector(":invalid") || valid()) refine();
    };
    const clear = () => {
      setFilters({ genres: [], language: "", varied: 0 });
      changed();
    };
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      close();
      const mode = given.mode.value, typed = fields[mode].value.trim();
      if (valid() && typed) ask({ ...filters(), [mode]: typed }, typed);
    });
    form.addEventListener("change", (event) => {
      if (event.target.name === "mode") switchTo(given.mode.value);
      else if (filterBox.contains(event.target)) changed();
    });
    given.varied.addEventListener("input", describe);
    find("mv-clear").addEventListener("click", clear);
    fields.text.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
    });
    nameLanguages();
    switchTo(given.mode.value);
    describe();
    return {
      filters, clear,
      /* Shows a question that came from the address or the history. */
      fill(question) {
        switchTo(question.text === undefined ? "title" : "text");
        for (const mode of ["title", "text"]) if (question[mode] !== undefined) fields[mode].value = question[mode];
        setFilters(question);
      },
      /* As it is where nothing is asked yet. */
      empty() {
        for (const field of Object.values(fields)) field.value = "";
        setFilters({ genres: [], language: "", varied: 0 });
      },
      named(title) { fields.title.value = title; },
      describeInstead(words) {
        switchTo("text");
        fields.text.value = words;
        fields.text.focus();
      },
    };
  };
})();
