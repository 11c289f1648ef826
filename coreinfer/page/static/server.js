"use strict";
// Talk with the server that sent the page, and with nobody else: JSON, streams, and every failure in words.
(function (ours) {
  const KEY = "coreinfer-key";
  let key = ours.kept("sessionStorage", KEY);

  // A failure in words; `status` 0: no answer at all; `wait`: seconds that the server asks for.
  class Refused extends Error {
    constructor(words, status, wait) {
      super(words);
      this.status = status;
      this.wait = wait;
    }
  }

  async function refusal(answer) {
    let said = "";
    try {
      said = (await answer.json()).error.message;
    } catch {
      said = ""; // no JSON of ours: the status has to do
    }
    const wait = Number(answer.headers.get("Retry-After")) || 0;
    if (answer.status === 401) return new Refused("The API key is missing or wrong.", 401, 0);
    if (answer.status === 503)
      return new Refused(
        `The server is busy${said ? ` (${said})` : ""}. Try again in ${ours.counted(wait || 1, "second")}.`,
        503,
        wait || 1,
      );
    return new Refused(
      said ? `The server refused: ${said}` : `The server answered with ${answer.status} ${answer.statusText}.`,
      answer.status,
      0,
    );
  }

  async function ask(path, body, signal) {
    const headers = { Accept: "application/json" };
    if (body) headers["Content-Type"] = "application/json";
    if (key) headers.Authorization = `Bearer ${key}`;
    let answer;
    try {
      answer = await fetch(path, {
        method: body ? "POST" : "GET",
        headers,
        body: body && JSON.stringify(body),
        signal,
        cache: "no-store",
      });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Refused("There is no connection to the server. Is it still running?", 0, 0);
    }
    if (!answer.ok) throw await refusal(answer);
    return answer;
  }

  ours.Refused = Refused;
  ours.unlock = (given) => (key = ours.kept("sessionStorage", KEY, given));
  ours.json = async (path, body, signal) => (await ask(path, body, signal)).json();

  // The objects of a stream of server-sent events, as they come.
  ours.events = async function* (path, body, signal) {
    const answer = await ask(path, body, signal),
      reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "",
      ended = false;
    try {
      for (;;) {
        const { done, value } = await reader.read();
        if (done) break;
        const lines = (rest + value).split(/\r?\n/);
        rest = lines.pop();
        for (const line of lines) {
          if (!line.startsWith("data:")) continue;
          const text = line.slice(5).trim();
          if (text === "[DONE]") {
            ended = true;
            return;
          }
          const event = JSON.parse(text);
          if (event.error) throw new Refused(`The server stopped: ${event.error.message}`, 500, 0);
          yield event;
        }
      }
    } catch (error) {
      if (error instanceof Refused || error.name === "AbortError") throw error;
      throw new Refused("The connection was lost before the text ended.", 0, 0);
    }
    if (!ended) throw new Refused("The connection was lost before the text ended.", 0, 0);
  };
})(window.coreinfer);
