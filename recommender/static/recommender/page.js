/* The page on movies: from a question to its address, from there to an answer, from a card to the next one.

   The address holds the question, the history's state the trail of hops that led to it. An answer is kept
   while the page is open: going back shows it again instead of asking, and logging, the same once more. */
(() => {
  "use strict";
  const movies = window.vigiaMovies;
  const { element } = movies;
  const find = (id) => document.getElementById(id);
  const results = find("mv-results"), heading = find("mv-heading"), about = find("mv-about"), cards = find("mv-cards");
  const trailBox = find("mv-trail"), tray = find("mv-liked"), status = find("mv-status"), start = find("mv-start");
  const LIKED = "vigia-movies-liked";
  const title = document.title;
  const calm = matchMedia("(prefers-reduced-motion: reduce)");

  const answers = new Map(); // by address: {answer, movie, told}
  const liked = new Map(JSON.parse(sessionStorage.getItem(LIKED) || "[]")); // titles by id
  let current = null; // the question that is shown
  let trail = [];     // [{address, name}], the last one is shown
  let asking = null;

  // -- going somewhere ----------------------------------------------------------------------------------

  /* A new question: the trail begins with it. */
  const begin = (question, name) => visit(question, [{ address: movies.write(question), name }], { push: true });

  /* The same question with other filters takes the place of the one that is shown. */
  function refine() {
    if (!current) return;
    const question = { ...current, ...form.filters() };
    visit(question, [...trail.slice(0, -1), { ...trail.at(-1), address: movies.write(question) }], { stay: true });
  }

  /* push: as a new entry of the history. stay: the focus is left where it is. */
  async function visit(question, way, { push = false, stay = false } = {}) {
    if (asking) asking.abort();
    const { signal } = (asking = new AbortController());
    const address = movies.write(question);
    [current, trail] = [question, way];
    if (push) history.pushState({ trail }, "", address);
    else history.replaceState({ trail }, "", address);
    form.fill(question);
    drawTrail();
    start.hidden = true;
    results.hidden = false;
    results.setAttribute("aria-busy", "true");
    heading.textContent ||= "Looking …";
    let found = answers.get(address), refused = null;
    try {
      found ||= await asked(question, signal);
    } catch (error) {
      refused = error;
    }
    if (signal.aborted) return; // somebody asks something else by now
    results.setAttribute("aria-busy", "false");
    if (refused) showRefusal(question, refused);
    else showAnswer(settled(question, found));
    document.title = `${heading.textContent} · Vigía`;
    if (stay) return;
    heading.focus({ preventScroll: true });
    (trail.length > 1 ? trailBox : results).scrollIntoView({ behavior: calm.matches ? "auto" : "smooth" });
  }

  async function asked(question, signal) {
    const answer = await movies.ask(question, signal);
    // What it is about comes from the catalogue; without that there are still recommendations.
    const ids = answer.recommendations.map((item) => item.movie_id);
    const [movie, synopses] = await Promise.all([
      answer.matched ? movies.movie(answer.matched.movie_id, signal).catch(() => null) : null,
      ids.length ? movies.descriptions(ids, signal).catch(() => new Map()) : new Map(),
    ]);
    return { answer, movie, synopses, told: new Set() };
  }

  /* Keeps an answer under the address that says what was meant: a title that was found is its movie from now on. */
  function settled(question, found) {
    const matched = found.answer.matched;
    if (matched) {
      const { title: _, ...rest } = question;
      current = { ...rest, movie: matched.movie_id };
      form.named(matched.title);
    }
    const address = movies.write(current);
    answers.set(address, found);
    trail = [...trail.slice(0, -1), { address, name: matched ? matched.title : trail.at(-1).name }];
    history.replaceState({ trail }, "", address);
    drawTrail();
    return found;
  }

  /* Whether a click is to be answered here; with a key held it opens another tab, which asks for itself. */
  function plain(event) {
    const here = event.button === 0 && !(event.metaKey || event.ctrlKey || event.shiftKey || event.altKey);
    if (here) event.preventDefault();
    return here;
  }

  /* A link to an address that is shown without loading the page anew. */
  function link(address, name, attributes, follow) {
    const made = element("a", { href: address, ...attributes }, name);
    made.addEventListener("click", (event) => { if (plain(event)) follow(); });
    return made;
  }

  // -- what is shown --------------------------------------------------------------------------------------

  function drawTrail() {
    trailBox.hidden = trail.length < 2;
    trailBox.firstElementChild.replaceChildren(...trail.map(({ address, name }, place) => {
      const here = place === trail.length - 1;
      const back = () => visit(movies.read(address), trail.slice(0, place + 1), { push: !here });
      return element("li", {}, link(address, name, here ? { "aria-current": "page" } : {}, back));
    }));
  }

  const short = (words) => (words.length > 90 ? `${words.slice(0, 89)}…` : words);

  function named(question, matched) {
    if (matched) return `Like ${matched.title}`;
    if (question.text !== undefined) return `For “${short(question.text)}”`;
    if (question.title !== undefined) return `Like “${question.title}”`;
    if (!question.liked) return trail.at(-1).name;
    return question.liked.length === 1 ? "Like the movie you liked" : `Like the ${question.liked.length} movies you liked`;
  }

  function showAnswer({ answer, movie, synopses, told }) {
    const given = answer.recommendations;
    heading.textContent = named(current, answer.matched);
    about.replaceChildren(...(movie ? [movies.about(movie)] : []));
    if (given.length && answer.basis === "genres") {
      about.append(movies.note("By genres alone", "There is no text to compare: these share its genres, the most popular first."));
    }
    about.append(given.length ? origin(answer) : movies.emptiness(current, answer, form.clear));
    const tell = teller(answer, told);
    cards.replaceChildren(...given.map((item, place) => {
      const question = { ...form.filters(), movie: item.movie_id }, address = movies.write(question);
      return movies.card(item, place + 1, {
        address,
        synopsis: synopses.get(item.movie_id) || "",
        hop(event) {
          tell(item, "clicked").catch(() => {}); // a click that could not be counted stops nobody
          if (plain(event)) visit(question, [...trail, { address, name: item.title }], { push: true });
        },
        liked: told.has(`liked ${item.movie_id}`),
        like: movies.mayTell ? (say) => like(item, say, tell) : null,
      });
    }));
    drawTray();
    status.textContent = given.length ? `${given.length} recommendations. ${heading.textContent}` : about.innerText;
  }

  /* Reports what was done with a recommended movie, each thing once. */
  const teller = (answer, told) => async (item, kind) => {
    const once = `${kind} ${item.movie_id}`;
    if (!movies.mayTell || told.has(once)) return;
    told.add(once);
    try {
      await movies.tell(answer.id, item.movie_id, kind);
    } catch (error) {
      told.delete(once);
      throw error;
    }
  };

  function origin(answer) {
    const many = answer.recommendations.length, place = movies.logged(answer.id);
    const logged = element("code", {}, place ? element("a", { href: place }, answer.id) : answer.id);
    return element("p", { class: "mv-origin" }, `${many} ${many === 1 ? "movie" : "movies"} by version ${answer.version}, in the log as `, logged);
  }

  function showRefusal(question, error) {
    heading.textContent = named(question, null);
    cards.replaceChildren();
    about.replaceChildren(movies.refusal(question, error, {
      again: () => visit(question, trail),
      describe: form.describeInstead,
      candidate(movie) {
        const { title: _, ...rest } = question, meant = { ...rest, movie: movie.movie_id }, address = movies.write(meant);
        const name = movie.year ? `${movie.title} (${movie.year})` : movie.title;
        return link(address, name, { class: "button" }, () => visit(meant, [...trail.slice(0, -1), { address, name: movie.title }], { push: true }));
      },
    }));
    drawTray();
    status.textContent = about.innerText;
  }

  // -- what somebody liked --------------------------------------------------------------------------------

  async function like(item, say, tell) {
    say(true);
    liked.set(item.movie_id, item.title);
    drawTray();
    try {
      await tell(item, "liked");
      status.textContent = `${item.title} is liked`;
    } catch (error) {
      say(false);
      liked.delete(item.movie_id);
      drawTray();
      status.textContent = `${item.title} could not be liked: ${error.message}`;
    }
  }

  function drawTray() {
    sessionStorage.setItem(LIKED, JSON.stringify([...liked]));
    tray.hidden = liked.size === 0;
    const items = [...liked].map(([id, name]) => {
      const out = element("button", { type: "button", "aria-label": `Leave out ${name}` }, "×");
      out.addEventListener("click", () => {
        liked.delete(id);
        drawTray();
        (tray.querySelector("button") || heading).focus();
      });
      return element("li", {}, name, " ", out);
    });
    const question = { ...form.filters(), liked: [...liked.keys()] };
    const ask = link(movies.write(question), "Recommend from these", { class: "button" }, () => begin(question, "What you liked"));
    tray.replaceChildren(element("h2", {}, "You liked"), element("ul", {}, ...items), ask);
  }

  // -- beginning ------------------------------------------------------------------------------------------

  /* The question in the address. stay: where nobody acted on this page yet. */
  function arrive(stay) {
    const question = movies.read(location.search);
    start.hidden = Boolean(question);
    if (!question) {
      if (asking) asking.abort();
      results.hidden = trailBox.hidden = true;
      current = null;
      document.title = title;
      form.empty();
      return;
    }
    const name = question.title || question.text || (question.liked ? "What you liked" : `Movie ${question.movie}`);
    visit(question, (history.state && history.state.trail) || [{ address: movies.write(question), name }], { stay });
  }

  const form = movies.form({ ask: begin, refine });
  addEventListener("popstate", () => arrive(false));
  drawTray();
  arrive(true);
})();
