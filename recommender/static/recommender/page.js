/* The recommender's page: shows the answer to the question in its address; cards lead to the next question.

   The address holds the question, and the history's state holds the trail of questions before it. The page keeps
   answers while it is open: going back shows the kept answer and does not request, and log, another one. */
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

  const answers = new Map(); // address -> {answer, movie, synopses, reported}
  const liked = new Map(JSON.parse(sessionStorage.getItem(LIKED) || "[]")); // id -> title
  let current = null; // the shown question
  let trail = [];     // [{address, name}], the last entry is the shown question
  let asking = null;

  // -- questions ----------------------------------------------------------------------------------------

  /* Shows a new question, which starts a new trail. */
  const begin = (question, name) => visit(question, [{ address: movies.write(question), name }], { push: true });

  /* Replaces the shown question by the same question with the form's filters. */
  function refine() {
    if (!current) return;
    const question = { ...current, ...form.filters() };
    visit(question, [...trail.slice(0, -1), { ...trail.at(-1), address: movies.write(question) }], { stay: true });
  }

  /* Shows a question. push: adds an entry to the history. stay: leaves the focus where it is. */
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
    let result = answers.get(address), failure = null;
    try {
      result ||= await fetchAnswer(question, signal);
    } catch (error) {
      failure = error;
    }
    if (signal.aborted) return; // the user has asked another question
    results.setAttribute("aria-busy", "false");
    if (failure) showError(question, failure);
    else showAnswer(keep(question, result));
    document.title = `${heading.textContent} · Vigía`;
    if (stay) return;
    heading.focus({ preventScroll: true });
    (trail.length > 1 ? trailBox : results).scrollIntoView({ behavior: calm.matches ? "auto" : "smooth" });
  }

  async function fetchAnswer(question, signal) {
    const answer = await movies.ask(question, signal);
    // The catalogue has the descriptions; without them the page still shows recommendations.
    const ids = answer.recommendations.map((item) => item.movie_id);
    const [movie, synopses] = await Promise.all([
      answer.matched ? movies.movie(answer.matched.movie_id, signal).catch(() => null) : null,
      ids.length ? movies.descriptions(ids, signal).catch(() => new Map()) : new Map(),
    ]);
    return { answer, movie, synopses, reported: new Set() };
  }

  /* Keeps an answer under its address; the address of a matched title names the movie's id from then on. */
  function keep(question, result) {
    const matched = result.answer.matched;
    if (matched) {
      const { title: _, ...rest } = question;
      current = { ...rest, movie: matched.movie_id };
      form.setTitle(matched.title);
    }
    const address = movies.write(current);
    answers.set(address, result);
    trail = [...trail.slice(0, -1), { address, name: matched ? matched.title : trail.at(-1).name }];
    history.replaceState({ trail }, "", address);
    drawTrail();
    return result;
  }

  /* Returns whether this page handles a click; with a modifier key the click opens another tab. */
  function plain(event) {
    const here = event.button === 0 && !(event.metaKey || event.ctrlKey || event.shiftKey || event.altKey);
    if (here) event.preventDefault();
    return here;
  }

  /* Returns a link to an address that this page shows without a reload. */
  function link(address, name, attributes, follow) {
    const node = element("a", { href: address, ...attributes }, name);
    node.addEventListener("click", (event) => { if (plain(event)) follow(); });
    return node;
  }

  // -- display --------------------------------------------------------------------------------------------

  function drawTrail() {
    trailBox.hidden = trail.length < 2;
    trailBox.firstElementChild.replaceChildren(...trail.map(({ address, name }, place) => {
      const here = place === trail.length - 1;
      const back = () => visit(movies.read(address), trail.slice(0, place + 1), { push: !here });
      return element("li", {}, link(address, name, here ? { "aria-current": "page" } : {}, back));
    }));
  }

  const short = (words) => (words.length > 90 ? `${words.slice(0, 89)}…` : words);

  function headingOf(question, matched) {
    if (matched) return `Like ${matched.title}`;
    if (question.text !== undefined) return `For “${short(question.text)}”`;
    if (question.title !== undefined) return `Like “${question.title}”`;
    if (!question.liked) return trail.at(-1).name;
    return question.liked.length === 1 ? "Like the movie you liked" : `Like the ${question.liked.length} movies you liked`;
  }

  function showAnswer({ answer, movie, synopses, reported }) {
    const items = answer.recommendations;
    heading.textContent = headingOf(current, answer.matched);
    about.replaceChildren(...(movie ? [movies.about(movie)] : []));
    if (items.length && answer.basis === "genres") {
      about.append(movies.note("By genres alone", "The movie has no text to compare. These movies share its genres, most popular first."));
    }
    about.append(items.length ? origin(answer) : movies.emptiness(current, answer, form.clear));
    const report = reporter(answer, reported);
    cards.replaceChildren(...items.map((item, place) => {
      const question = { ...form.filters(), movie: item.movie_id }, address = movies.write(question);
      return movies.card(item, place + 1, {
        address,
        synopsis: synopses.get(item.movie_id) || "",
        hop(event) {
          report(item, "clicked").catch(() => {}); // an unreported click must not stop the user
          if (plain(event)) visit(question, [...trail, { address, name: item.title }], { push: true });
        },
        liked: reported.has(`liked ${item.movie_id}`),
        like: movies.mayReport ? (show) => like(item, show, report) : null,
      });
    }));
    drawTray();
    status.textContent = items.length ? `${items.length} recommendations. ${heading.textContent}` : about.innerText;
  }

  /* Returns a function that reports an interaction with a recommended movie, each kind once. */
  const reporter = (answer, reported) => async (item, kind) => {
    const entry = `${kind} ${item.movie_id}`;
    if (!movies.mayReport || reported.has(entry)) return;
    reported.add(entry);
    try {
      await movies.report(answer.id, item.movie_id, kind);
    } catch (error) {
      reported.delete(entry);
      throw error;
    }
  };

  function origin(answer) {
    const many = answer.recommendations.length, place = movies.logged(answer.id);
    const logged = element("code", {}, place ? element("a", { href: place }, answer.id) : answer.id);
    return element("p", { class: "mv-origin" }, `${many} ${many === 1 ? "movie" : "movies"} from version ${answer.version}, logged as `, logged);
  }

  function showError(question, error) {
    heading.textContent = headingOf(question, null);
    cards.replaceChildren();
    about.replaceChildren(movies.errorNote(question, error, {
      again: () => visit(question, trail),
      describe: form.describeInstead,
      candidate(movie) {
        const { title: _, ...rest } = question, chosen = { ...rest, movie: movie.movie_id }, address = movies.write(chosen);
        const name = movie.year ? `${movie.title} (${movie.year})` : movie.title;
        return link(address, name, { class: "button" }, () => visit(chosen, [...trail.slice(0, -1), { address, name: movie.title }], { push: true }));
      },
    }));
    drawTray();
    status.textContent = about.innerText;
  }

  // -- liked movies ---------------------------------------------------------------------------------------

  async function like(item, show, report) {
    show(true);
    liked.set(item.movie_id, item.title);
    drawTray();
    try {
      await report(item, "liked");
      status.textContent = `You liked ${item.title}`;
    } catch (error) {
      show(false);
      liked.delete(item.movie_id);
      drawTray();
      status.textContent = `The like of ${item.title} was not saved: ${error.message}`;
    }
  }

  function drawTray() {
    sessionStorage.setItem(LIKED, JSON.stringify([...liked]));
    tray.hidden = liked.size === 0;
    const items = [...liked].map(([id, name]) => {
      const remove = element("button", { type: "button", "aria-label": `Remove ${name}` }, "×");
      remove.addEventListener("click", () => {
        liked.delete(id);
        drawTray();
        (tray.querySelector("button") || heading).focus();
      });
      return element("li", {}, name, " ", remove);
    });
    const question = { ...form.filters(), liked: [...liked.keys()] };
    const ask = link(movies.write(question), "Recommend from these", { class: "button" }, () => begin(question, "Movies you liked"));
    tray.replaceChildren(element("h2", {}, "Movies you liked"), element("ul", {}, ...items), ask);
  }

  // -- start ----------------------------------------------------------------------------------------------

  /* Shows the question of the address. stay: true at the first load, before any action of the user. */
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
    const name = question.title || question.text || (question.liked ? "Movies you liked" : `Movie ${question.movie}`);
    visit(question, (history.state && history.state.trail) || [{ address: movies.write(question), name }], { stay });
  }

  const form = movies.form({ ask: begin, refine });
  addEventListener("popstate", () => arrive(false));
  drawTray();
  arrive(true);
})();
