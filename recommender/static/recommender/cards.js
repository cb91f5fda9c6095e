/* A recommended movie as a card, with the reasons for it.

   Text comes in as text nodes alone, and sizes through the style object: nothing that a title holds is
   ever read as markup. */
(() => {
  "use strict";
  const movies = window.vigiaMovies;
  const FIELDS = { title: "Title", description: "Description", genres: "Genres", keywords: "Keywords", together: "Liked together" };
  const SHOWN = matchMedia("(max-width: 40rem)").matches ? 5 : 9; // reasons before somebody asks for all

  const element = (movies.element = (tag, attributes = {}, ...children) => {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.append(...children.map((child) => (child instanceof Node ? child : document.createTextNode(String(child)))));
    return made;
  });

  const percent = (share) => {
    const rounded = Math.round(Math.abs(share) * 100);
    return `${share < 0 ? "−" : ""}${rounded || "<1"}\u202f%`;
  };

  /* The same genre has the same colour everywhere; those that stand for it were drawn once. */
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

  /* Reasons by field, both with the largest share first: [[field, share, reasons]]. */
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
    const made = element("li", { class: "mv-chip" }, reason.term, " ", element("span", {}, percent(reason.share)));
    made.style.setProperty("--part", Math.max(0, reason.share) / largest);
    if (reason.share < 0) made.classList.add("mv-against");
    made.hidden = !shown;
    return made;
  }

  function reasons(because, id) {
    const largest = Math.max(...because.map((reason) => (reason.field === "together" ? 0 : Math.abs(reason.share)))) || 1;
    const first = new Set(because.slice(0, SHOWN));
    const groups = grouped(because);
    const said = element("p", { class: "mv-because" }, "because of what they share");
    const bar = element("div", { class: "mv-parts", "aria-hidden": "true" });
    const list = element("dl", { class: "mv-why", id });
    for (const [field, share, found] of groups) {
      const part = element("span", { "data-field": field });
      part.style.flexGrow = Math.max(0, share);
      bar.append(part);
      const term = element("dt", {}, FIELDS[field] || field, " ", element("b", {}, percent(share)));
      const chips = element("dd", {}, element("ul", {}, ...found.map((reason) => chip(reason, largest, first.has(reason)))));
      if (field === "together") chips.replaceChildren("by the same people");
      const group = element("div", { "data-field": field }, term, chips);
      group.hidden = !found.some((reason) => first.has(reason));
      list.append(group);
    }
    const more = because.length - first.size;
    if (more <= 0) return [said, bar, list];
    const rest = because.slice(SHOWN).reduce((sum, reason) => sum + reason.share, 0);
    const closed = `${more} more, ${percent(rest)}`;
    const button = element("button", { type: "button", class: "mv-more", "aria-expanded": "false", "aria-controls": id }, closed);
    const hidden = [...list.querySelectorAll("[hidden]")];
    button.addEventListener("click", () => {
      const open = button.getAttribute("aria-expanded") !== "true";
      hidden.forEach((node) => { node.hidden = !open; });
      button.setAttribute("aria-expanded", String(open));
      button.textContent = open ? "fewer" : closed;
    });
    return [said, bar, list, button];
  }

  /* One recommended movie, which leads to the next question at `address`. `hop` is called with the event of a
     click there; `like`, where one may like it, with a function that says whether it is liked. */
  movies.card = (item, place, { address, synopsis, hop, like, liked }) => {
    const named = `mv-movie-${item.movie_id}`;
    const link = element("a", { href: address }, item.title);
    link.addEventListener("click", hop);
    link.addEventListener("auxclick", (event) => { if (event.button === 1) hop(event); });
    const facts = [item.year, ...item.genres].filter(Boolean).join(" · ");
    const head = element("header", {},
      element("span", { class: "mv-big", "aria-hidden": "true" }, item.year || place),
      element("h3", { id: named }, link),
      element("p", { class: "mv-facts" }, facts));
    const fill = element("span", {});
    fill.style.width = `${Math.min(1, Math.max(0, item.score)) * 100}%`;
    const score = element("p", { class: "mv-score" },
      element("span", { class: "mv-bar", "aria-hidden": "true" }, fill),
      element("span", { title: "Cosine of the two movies' terms: 1 is the same, 0 nothing in common" }, "match ", element("b", {}, item.score.toFixed(2))));
    const body = element("div", { class: "mv-body" }, score);
    if (synopsis) body.append(element("p", { class: "mv-synopsis", title: synopsis }, synopsis));
    if ((item.because || []).length) body.append(...reasons(item.because, `mv-why-${item.movie_id}`));
    if (like) {
      const button = element("button", { type: "button", class: "mv-like", "aria-pressed": String(liked), "aria-label": `Like ${item.title}` });
      const say = (on) => { button.textContent = on ? "♥ Liked" : "♡ Like"; button.setAttribute("aria-pressed", String(on)); };
      say(liked);
      button.addEventListener("click", () => { if (button.getAttribute("aria-pressed") === "false") like(say); });
      body.append(element("footer", {}, button));
    }
    return element("li", {}, tinted(element("article", { "aria-labelledby": named }, head, body), item.genres));
  };

  /* What a movie is about, above those that are like it. */
  movies.about = (movie) => {
    const facts = [movie.year, ...(movie.genres || []), movie.runtime && `${movie.runtime} min`, movie.rating && `${movie.rating.toFixed(1)} of 10`];
    return tinted(element("div", { class: "mv-about" },
      element("p", { class: "mv-facts" }, facts.filter(Boolean).join(" · ")),
      element("p", {}, movie.description || "The catalogue has no description of it.")), movie.genres || []);
  };
})();
