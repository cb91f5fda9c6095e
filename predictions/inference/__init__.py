"""From a request to its logged answer: bodies are read, engines asked, answers written."""
