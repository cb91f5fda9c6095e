/* What the page on movies asks of the service, and how a question stands in the address.

   A question: {movie | title | text | liked (ids), genres, from, to, language, varied}. In the address as
   ?movie=155&genre=Crime&from=1990, so that it can be sent to somebody and outlives a login. */
(() => {
  "use strict";
  const movies = (window.vigiaMovies = {});
  const form = document.getElementById("mv-form");
  const at = form.dataset;
  const MOST = 12;

  /* A refusal as the API words it: {status, code, message, details}; status 0 when nothing came back. */
  class Refused extends Error {
    constructor(status, error) {
      super(error.message);
      Object.assign(this, { status, code: error.code, details: error.details || [] });
    }
  }

  async function call(method, address, body, more = {}) {
    const headers = { Accept: "application/json" };
    if (body !== undefined) {
      headers["Content-Type"] = "application/json";
      headers["X-CSRFToken"] = form.elements.csrfmiddlewaretoken.value;
    }
    let response;
    try {
      response = await fetch(address, {
        method, headers, credentials: "same-origin", body: body === undefined ? undefined : JSON.stringify(body), ...more,
      });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Refused(0, { code: "unreachable", message: "the service cannot be reached" });
    }
    const answer = await response.json().catch(() => null);
    if (!response.ok || answer === null) {
      const unread = { code: "unreadable", message: `the service answered with status ${response.status}` };
      throw new Refused(response.status, (answer && answer.error) || unread);
    }
    return answer;
  }

  const LARGEST = 2 ** 53; // an id may be as large, and not larger
  const whole = (text) => (/^\d{1,16}$/.test(text || "") && BigInt(text) <= LARGEST ? Number(text) : null);

  /* The question an address asks, or null. */
  movies.read = (search) => {
    const given = new URLSearchParams(search);
    const question = {
      genres: given.getAll("genre"), from: whole(given.get("from")), to: whole(given.get("to")),
      language: given.get("language") || "", varied: Math.min(1, Math.max(0, Number(given.get("varied")) || 0)),
    };
    const liked = given.getAll("liked").map(whole).filter((id) => id !== null);
    const movie = whole(given.get("movie"));
    if (movie !== null) return { ...question, movie };
    if (given.get("title")) return { ...question, title: given.get("title") };
    if (given.get("text")) return { ...question, text: given.get("text") };
    if (liked.length) return { ...question, liked };
    return null;
  };

  /* The address of a question; the same question always has the same. */
  movies.write = (question) => {
    const said = new URLSearchParams();
    if (question.movie !== undefined) said.append("movie", question.movie);
    else if (question.title !== undefined) said.append("title", question.title);
    else if (question.text !== undefined) said.append("text", question.text);
    else question.liked.forEach((id) => said.append("liked", id));
    question.genres.forEach((genre) => said.append("genre", genre));
    for (const name of ["from", "to", "language", "varied"]) if (question[name]) said.append(name, question[name]);
    return `?${said}`;
  };

  movies.ask = (question, signal) => {
    const body = { top_n: MOST };
    if (question.movie !== undefined) body.movie_id = question.movie;
    else if (question.title !== undefined) body.title = question.title;
    else if (question.text !== undefined) body.text = question.text;
    else body.liked = question.liked;
    if (question.genres.length) body.genres = question.genres;
    if (question.from) body.year_from = question.from;
    if (question.to) body.year_to = question.to;
    if (question.language) body.language = question.language;
    if (question.varied) body.diversity = question.varied;
    return call("POST", at.recommendations, body, { signal });
  };

  movies.titles = async (typed, signal) => {
    const found = await call("GET", `${at.movies}suggestions/?${new URLSearchParams({ title: typed })}`, undefined, { signal });
    return found.movies;
  };

  /* Descriptions by id. */
  movies.descriptions = async (ids, signal) => {
    const asked = new URLSearchParams(ids.map((id) => ["id", id]));
    const found = await call("GET", `${at.movies}?${asked}`, undefined, { signal });
    return new Map(found.movies.map((movie) => [movie.id, movie.description]));
  };

  movies.movie = (id, signal) => call("GET", `${at.movies}${id}/`, undefined, { signal });

  /* Kept alive: a click may leave the page before it is sent. */
  movies.tell = (recommendation, movie, kind) =>
    call("POST", `${at.recommendations}${recommendation}/feedback/`, { movie_id: movie, kind }, { keepalive: true });

  movies.mayTell = at.mayTell !== undefined;
  movies.logged = (recommendation) => (at.mayRead === undefined ? "" : `${at.recommendations}${recommendation}/`);
  movies.login = () => `${at.login}?${new URLSearchParams({ next: location.pathname + location.search })}`;
})();
