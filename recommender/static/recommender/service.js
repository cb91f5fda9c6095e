/* Requests of the recommender's page to the API, and the address of a question.

   A question: {movie | title | text | liked (ids), genres, from, to, language, varied}. Its address is such as
   ?movie=155&genre=Crime&from=1990, so that users can send it and it survives a login. */
(() => {
  "use strict";
  const movies = (window.vigiaMovies = {});
  const form = document.getElementById("mv-form");
  const at = form.dataset;
  const MOST = 12;

  /* An error of the API: {status, code, message, details}; status 0 if there was no response. */
  class ApiError extends Error {
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
      throw new ApiError(0, { code: "unreachable", message: "the service cannot be reached" });
    }
    const answer = await response.json().catch(() => null);
    if (!response.ok || answer === null) {
      const unread = { code: "unreadable", message: `the service answered with status ${response.status}` };
      throw new ApiError(response.status, (answer && answer.error) || unread);
    }
    return answer;
  }

  const LARGEST = 2 ** 53; // the largest id
  const toInteger = (text) => (/^\d{1,16}$/.test(text || "") && BigInt(text) <= LARGEST ? Number(text) : null);

  /* Returns the question of an address, or null. */
  movies.read = (search) => {
    const parameters = new URLSearchParams(search);
    const question = {
      genres: parameters.getAll("genre"), from: toInteger(parameters.get("from")), to: toInteger(parameters.get("to")),
      language: parameters.get("language") || "", varied: Math.min(1, Math.max(0, Number(parameters.get("varied")) || 0)),
    };
    const liked = parameters.getAll("liked").map(toInteger).filter((id) => id !== null);
    const movie = toInteger(parameters.get("movie"));
    if (movie !== null) return { ...question, movie };
    if (parameters.get("title")) return { ...question, title: parameters.get("title") };
    if (parameters.get("text")) return { ...question, text: parameters.get("text") };
    if (liked.length) return { ...question, liked };
    return null;
  };

  /* Returns the address of a question; equal questions have equal addresses. */
  movies.write = (question) => {
    const parameters = new URLSearchParams();
    if (question.movie !== undefined) parameters.append("movie", question.movie);
    else if (question.title !== undefined) parameters.append("title", question.title);
    else if (question.text !== undefined) parameters.append("text", question.text);
    else question.liked.forEach((id) => parameters.append("liked", id));
    question.genres.forEach((genre) => parameters.append("genre", genre));
    for (const name of ["from", "to", "language", "varied"]) if (question[name]) parameters.append(name, question[name]);
    return `?${parameters}`;
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
    const page = await call("GET", `${at.movies}suggestions/?${new URLSearchParams({ title: typed })}`, undefined, { signal });
    return page.movies;
  };

  /* Returns descriptions by id. */
  movies.descriptions = async (ids, signal) => {
    const parameters = new URLSearchParams(ids.map((id) => ["id", id]));
    const page = await call("GET", `${at.movies}?${parameters}`, undefined, { signal });
    return new Map(page.movies.map((movie) => [movie.id, movie.description]));
  };

  movies.movie = (id, signal) => call("GET", `${at.movies}${id}/`, undefined, { signal });

  /* Reports feedback, with keepalive: a click may leave the page before the request is sent. */
  movies.report = (recommendation, movie, kind) =>
    call("POST", `${at.recommendations}${recommendation}/feedback/`, { movie_id: movie, kind }, { keepalive: true });

  movies.mayReport = at.mayReport !== undefined;
  movies.logged = (recommendation) => (at.mayRead === undefined ? "" : `${at.recommendations}${recommendation}/`);
  movies.login = () => `${at.login}?${new URLSearchParams({ next: location.pathname + location.search })}`;
})();
