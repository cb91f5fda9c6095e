/* What the page on movies says where there are no cards, and what one can do about it. */
(() => {
  "use strict";
  const movies = window.vigiaMovies;
  const { element } = movies;

  const note = (movies.note = (heading, text, ...actions) => {
    const made = element("div", { class: "mv-note" }, element("h3", {}, heading), element("p", {}, text));
    if (actions.length) made.append(element("p", { class: "links" }, ...actions));
    return made;
  });

  const button = (words, work) => {
    const made = element("button", { type: "button", class: "button" }, words);
    made.addEventListener("click", work);
    return made;
  };

  /* An answer without a movie. `clear` takes the filters away. */
  movies.emptiness = (question, answer, clear) => {
    switch (answer.reason) {
      case "nothing_to_compare":
        return question.text === undefined
          ? note("Nothing to go by", "The index knows neither a word nor a genre of it.")
          : note("None of these words is known", "No movie of the catalogue is described with any of them. Try other words, or more of them.");
      case "no_neighbour":
        return note("One of a kind", "No other movie has anything in common with it that the index looks at.");
      case "filtered_out":
        return note("The filters leave nothing", "There are movies like it, but none that passes all filters.", button("Clear the filters", clear));
      default:
        return note("Nothing found", "The index has no recommendation here.");
    }
  };

  const HEADINGS = {
    no_active_version: "Nothing can be recommended now", unreachable: "Out of reach", forbidden: "Not allowed", throttled: "Too many questions",
  };

  /* A refusal. `again` asks once more, `describe` takes words over into the free text, `candidate` makes the
     link to a movie that a title may mean. */
  movies.refusal = (question, error, { again, describe, candidate }) => {
    if (error.code === "ambiguous_title") {
      const box = note("Which one do you mean?", `More than one movie is called “${question.title}”, or nearly so.`);
      box.append(element("ul", { class: "mv-candidates" }, ...error.details.map((movie) => element("li", {}, candidate(movie)))));
      return box;
    }
    if (error.code === "unknown_movie" && question.title !== undefined) {
      const said = `The catalogue has none called “${question.title}”, nor one spelt nearly so.`;
      return note("No such movie", said, button("Describe it instead", () => describe(question.title)));
    }
    if (error.code === "unknown_movie") return note("No such movie", "The catalogue has none with this number, or has it no longer.");
    if (error.status === 401 || error.code === "csrf_failed") {
      const link = element("a", { class: "button", href: movies.login() }, "Log in");
      return note("You are no longer logged in", "Log in again, and this question will be asked.", link);
    }
    const said = error.details.map((fault) => fault.message).filter(Boolean).join("; ") || error.message;
    return note(HEADINGS[error.code] || "That did not work", `${said.charAt(0).toUpperCase()}${said.slice(1)}.`, button("Try again", again));
  };
})();
