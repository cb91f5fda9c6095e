/* Notes of the recommender's page for empty answers and errors, with the possible actions. */
(() => {
  "use strict";
  const movies = window.vigiaMovies;
  const { element } = movies;

  const note = (movies.note = (heading, text, ...actions) => {
    const node = element("div", { class: "mv-note" }, element("h3", {}, heading), element("p", {}, text));
    if (actions.length) node.append(element("p", { class: "links" }, ...actions));
    return node;
  });

  const button = (label, action) => {
    const node = element("button", { type: "button", class: "button" }, label);
    node.addEventListener("click", action);
    return node;
  };

  /* Returns the note for an answer without movies. `clear` removes the filters. */
  movies.emptiness = (question, answer, clear) => {
    switch (answer.reason) {
      case "nothing_to_compare":
        return question.text === undefined
          ? note("No terms to compare", "The index knows no word and no genre of this movie.")
          : note("The index knows none of these words", "No description in the catalogue contains them. Try other words, or more words.");
      case "no_neighbour":
        return note("No similar movies", "No other movie shares a term with this movie.");
      case "filtered_out":
        return note("The filters exclude every movie", "There are similar movies, but none of them meets all filters.", button("Clear filters", clear));
      default:
        return note("No recommendations", "The index has no recommendation for this question.");
    }
  };

  const HEADINGS = {
    no_active_version: "No active version", unreachable: "Service unreachable", forbidden: "You do not have permission", throttled: "Too many requests",
  };

  /* Returns the note for an error. `again` repeats the request, `describe` moves words into the free text,
     `candidate` returns a link to a movie that the title may name. */
  movies.errorNote = (question, error, { again, describe, candidate }) => {
    if (error.code === "ambiguous_title") {
      const box = note("Which movie do you mean?", `Several movies have the title “${question.title}” or a similar one.`);
      box.append(element("ul", { class: "mv-candidates" }, ...error.details.map((movie) => element("li", {}, candidate(movie)))));
      return box;
    }
    if (error.code === "unknown_movie" && question.title !== undefined) {
      const text = `The catalogue has no movie with the title “${question.title}” or a similar one.`;
      return note("Unknown movie", text, button("Describe it instead", () => describe(question.title)));
    }
    if (error.code === "unknown_movie") return note("Unknown movie", "The catalogue has no movie with this id, or the movie is withdrawn.");
    if (error.status === 401 || error.code === "csrf_failed") {
      const link = element("a", { class: "button", href: movies.login() }, "Log in");
      return note("You are no longer logged in", "Log in again to get the recommendations.", link);
    }
    const text = error.details.map((fault) => fault.message).filter(Boolean).join("; ") || error.message;
    return note(HEADINGS[error.code] || "The request failed", `${text.charAt(0).toUpperCase()}${text.slice(1)}.`, button("Try again", again));
  };
})();
