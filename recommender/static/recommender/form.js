/* The form of the recommender's page: reads a question from its fields, and fills them from a question. */
(() => {
  "use strict";
  const movies = window.vigiaMovies;
  const find = (id) => document.getElementById(id);
  const form = find("mv-form"), inputs = form.elements, filterBox = form.querySelector(".mv-filters");
  const fields = { title: find("mv-title"), text: find("mv-text") };
  const genres = () => [...form.querySelectorAll("[name=genre]")];

  const number = (field) => (field.value === "" ? null : Number(field.value));

  const filters = () => ({
    genres: genres().filter((box) => box.checked).map((box) => box.value),
    from: number(inputs.from), to: number(inputs.to), language: inputs.language.value, varied: Number(inputs.varied.value),
  });

  function switchTo(mode) {
    inputs.mode.value = mode;
    for (const box of form.querySelectorAll("[data-mode]")) {
      const on = box.dataset.mode === mode;
      box.hidden = !on;
      Object.assign(fields[box.dataset.mode], { disabled: !on, required: on });
    }
  }

  /* Adds check boxes for genres of an address that the page does not offer. */
  function addGenres(names) {
    const place = form.querySelector(".mv-genres");
    if (!place) return;
    for (const name of names) {
      const box = movies.element("input", { type: "checkbox", name: "genre", value: name, checked: "" });
      place.append(movies.element("label", {}, box, " ", movies.element("span", {}, name)));
    }
  }

  function setFilters(question) {
    const chosen = new Set(question.genres.map((genre) => genre.toLowerCase()));
    for (const box of genres()) box.checked = chosen.delete(box.value.toLowerCase());
    if (chosen.size) addGenres(question.genres.filter((genre) => chosen.has(genre.toLowerCase())));
    const offered = [...inputs.language.options].some((option) => option.value === question.language);
    if (!offered) inputs.language.add(new Option(question.language, question.language));
    inputs.from.value = question.from || "";
    inputs.to.value = question.to || "";
    inputs.language.value = question.language;
    inputs.varied.value = question.varied;
    describe();
  }

  /* Shows the number of filters and the meaning of the variety. */
  function describe() {
    const set = filters(), varied = set.varied;
    const many = set.genres.length + Boolean(set.from) + Boolean(set.to) + Boolean(set.language) + Boolean(varied);
    Object.assign(find("mv-filtered"), { hidden: !many, textContent: `${many} set` });
    find("mv-clear").hidden = !many;
    const label = !varied ? "most similar movies"
      : varied < 0.35 ? "a little variety" : varied < 0.65 ? "more variety" : "most variety";
    find("mv-varied-label").textContent = label;
    inputs.varied.setAttribute("aria-valuetext", label);
    const reversed = set.from && set.to && set.from > set.to;
    inputs.to.setCustomValidity(reversed ? "The last year must not be before the first year." : "");
  }

  /* Replaces language codes by names that the browser knows. */
  function nameLanguages() {
    const names = new Intl.DisplayNames(["en"], { type: "language" });
    for (const option of inputs.language.options) {
      try {
        if (option.value) option.textContent = names.of(option.value);
      } catch { /* not a language code: the option keeps the catalogue's text */ }
    }
  }

  /* The form calls `ask` with a question and its words, and `refine` after a change of a filter. */
  movies.form = ({ ask, refine }) => {
    const close = movies.suggest(fields.title, find("mv-suggestions"), (movie) => ask({ ...filters(), movie: movie.id }, movie.title));
    const valid = () => {
      if (filterBox.querySelector(":invalid")) filterBox.open = true; // otherwise the browser cannot show the error
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
      const mode = inputs.mode.value, typed = fields[mode].value.trim();
      if (valid() && typed) ask({ ...filters(), [mode]: typed }, typed);
    });
    form.addEventListener("change", (event) => {
      if (event.target.name === "mode") switchTo(inputs.mode.value);
      else if (filterBox.contains(event.target)) changed();
    });
    inputs.varied.addEventListener("input", describe);
    find("mv-clear").addEventListener("click", clear);
    fields.text.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
    });
    nameLanguages();
    switchTo(inputs.mode.value);
    describe();
    return {
      filters, clear,
      /* Fills the form with a question of the address or the history. */
      fill(question) {
        switchTo(question.text === undefined ? "title" : "text");
        for (const mode of ["title", "text"]) if (question[mode] !== undefined) fields[mode].value = question[mode];
        setFilters(question);
      },
      /* Clears the form. */
      empty() {
        for (const field of Object.values(fields)) field.value = "";
        setFilters({ genres: [], language: "", varied: 0 });
      },
      setTitle(title) { fields.title.value = title; },
      describeInstead(words) {
        switchTo("text");
        fields.text.value = words;
        fields.text.focus();
      },
    };
  };
})();
