/* Cards of recommended movies with their reasons.

   The code adds text only as text nodes, and sizes only through the style object, so the browser never reads a
   title as markup. */
(() => {
  "use strict";
  const movies = window.vigiaMovies;
  const FIELDS = { title: "Title", description: "Description", genres: "Genres", keywords: "Keywords", together: "Liked together" };
  const SHOWN = matchMedia("(max-width: 40rem)").matches ? 5 : 9; // reasons shown before the button for more

  const element = (movies.element = (tag, attributes = {}, ...children) => {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    node.append(...children.map((child) => (child instanceof Node ? child : document.createTextNode(String(child)))));
    return node;
  });

  const percent = (share) => {
    const rounded = Math.round(Math.abs(share) * 100);
    return `${share < 0 ? "−" : ""}${rounded || "<1"}\u202f%`;
  };

  /* A genre has the same colour everywhere: common genres by this table, others by a hash of their letters. */
  const HUES = {
    action: 25, adventure: 65, animation: 330, comedy: 85, crime: 285, documentary: 190, drama: 250, family: 140,
    fantasy: 305, history: 55, horror: 15, music: 345, mystery: 275, romance: 0, "science fiction": 215, thriller: 235, war: 110, western: 45,
  };
  const hue = (genre) => {
    const known = HUES[genre.toLowerCase()];
    return known === undefined ? [...genre].reduce((sum, letter) => (sum * 31 + letter.codePointAt(0)) % 360, 7) : known;
  };

  function tinted(node, genres) {
    const first = genres.length ? hue(genres[0]) : 222;
    node.style.setProperty("--hue", first);
    node.style.setProperty("--hue-2", genres.length > 1 ? hue(genres[1]) : first + 30);
    return node;
  }

  /* Groups reasons by field, fields and reasons with the largest share first: [[field, share, reasons]]. */
  function grouped(because) {
    const groups = new Map();
    for (const reason of because) {
      if (!groups.has(reason.field)) groups.set(reason.field, [reason.field, 0, []]);
      const group = groups.get(reason.field);
      group[1] += reason.share;
      group[2].push(reason);
    }
    return [...groups.values()].sort((a, b) => b[1] - a[1]);
  }

  function chip(reason, largest, shown) {
    const node = element("li", { class: "mv-chip" }, reason.term, " ", element("span", {}, percent(reason.share)));
    node.style.setProperty("--part", Math.max(0, reason.share) / largest);
    if (reason.share < 0) node.classList.add("mv-against");
    node.hidden = !shown;
    return node;
  }

  function reasons(because, id) {
    const largest = Math.max(...because.map((reason) => (reason.field === "together" ? 0 : Math.abs(reason.share)))) || 1;
    const first = new Set(because.slice(0, SHOWN));
    const groups = grouped(because);
    const caption = element("p", { class: "mv-because" }, "recommended because of");
    const bar = element("div", { class: "mv-parts", "aria-hidden": "true" });
    const list = element("dl", { class: "mv-why", id });
    for (const [field, share, terms] of groups) {
      const part = element("span", { "data-field": field });
      part.style.flexGrow = Math.max(0, share);
      bar.append(part);
      const term = element("dt", {}, FIELDS[field] || field, " ", element("b", {}, percent(share)));
      const chips = element("dd", {}, element("ul", {}, ...terms.map((reason) => chip(reason, largest, first.has(reason)))));
      if (field === "together") chips.replaceChildren("by the same users");
      const group = element("div", { "data-field": field }, term, chips);
      group.hidden = !terms.some((reason) => first.has(reason));
      list.append(group);
    }
    const more = because.length - first.size;
    if (more <= 0) return [caption, bar, list];
    const rest = because.slice(SHOWN).reduce((sum, reason) => sum + reason.share, 0);
    const closed = `Show ${more} more, ${percent(rest)}`;
    const button = element("button", { type: "button", class: "mv-more", "aria-expanded": "false", "aria-controls": id }, closed);
    const hidden = [...list.querySelectorAll("[hidden]")];
    button.addEventListener("click", () => {
      const open = button.getAttribute("aria-expanded") !== "true";
      hidden.forEach((node) => { node.hidden = !open; });
      button.setAttribute("aria-expanded", String(open));
      button.textContent = open ? "Show fewer" : closed;
    });
    return [caption, bar, list, button];
  }

  /* Returns the card of one recommended movie; its link at `address` asks for similar movies. A click on the link
     calls `hop` with the event; a click on Like calls `like` with a function that shows the state. `like` is null
     for users without the right to report feedback. */
  movies.card = (item, place, { address, synopsis, hop, like, liked }) => {
    const headingId = `mv-movie-${item.movie_id}`;
    const link = element("a", { href: address }, item.title);
    link.addEventListener("click", hop);
    link.addEventListener("auxclick", (event) => { if (event.button === 1) hop(event); });
    const facts = [item.year, ...item.genres].filter(Boolean).join(" · ");
    const head = element("header", {},
      element("span", { class: "mv-big", "aria-hidden": "true" }, item.year || place),
      element("h3", { id: headingId }, link),
      element("p", { class: "mv-facts" }, facts));
    const fill = element("span", {});
    fill.style.width = `${Math.min(1, Math.max(0, item.score)) * 100}%`;
    const score = element("p", { class: "mv-score" },
      element("span", { class: "mv-bar", "aria-hidden": "true" }, fill),
      element("span", { title: "Cosine similarity of the terms: 1 identical, 0 no common term" }, "match ", element("b", {}, item.score.toFixed(2))));
    const body = element("div", { class: "mv-body" }, score);
    if (synopsis) body.append(element("p", { class: "mv-synopsis", title: synopsis }, synopsis));
    if ((item.because || []).length) body.append(...reasons(item.because, `mv-why-${item.movie_id}`));
    if (like) {
      const button = element("button", { type: "button", class: "mv-like", "aria-pressed": String(liked), "aria-label": `Like ${item.title}` });
      const show = (on) => { button.textContent = on ? "♥ Liked" : "♡ Like"; button.setAttribute("aria-pressed", String(on)); };
      show(liked);
      button.addEventListener("click", () => { if (button.getAttribute("aria-pressed") === "false") like(show); });
      body.append(element("footer", {}, button));
    }
    return element("li", {}, tinted(element("article", { "aria-labelledby": headingId }, head, body), item.genres));
  };

  /* Returns the description of a movie, shown above the similar movies. */
  movies.about = (movie) => {
    const facts = [movie.year, ...(movie.genres || []), movie.runtime && `${movie.runtime} min`, movie.rating && `${movie.rating.toFixed(1)} of 10`];
    return tinted(element("div", { class: "mv-about" },
      element("p", { class: "mv-facts" }, facts.filter(Boolean).join(" · ")),
      element("p", {}, movie.description || "The catalogue has no description of this movie.")), movie.genres || []);
  };
})();
