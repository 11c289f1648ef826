"use strict";
// The same prompt continued on all neurons and on its own, with the speed as it is measured here.
(function (ours) {
  // One of the two panes: what came so far, and how fast.
  class Pane {
    constructor(name, at) {
      this.text = at(`${name}-text`);
      this.speed = at(`${name}-speed`);
      this.foot = at(`${name}-foot`);
    }

    begin(prompt) {
      this.written = "";
      this.tokens = 0;
      this.first = null;
      this.before = null;
      this.told = null;
      this.body = document.createTextNode("");
      this.text.replaceChildren(ours.el("span", { class: "asked" }, prompt), this.body);
      this.speed.replaceChildren();
      this.foot.textContent = "waiting …";
    }

    take(event) {
      const choice = event.choices && event.choices[0];
      if (event.usage) this.counted = event.usage.completion_tokens;
      if (!choice) return;
      if (choice.coreinfer) this.told = { ...this.told, ...choice.coreinfer };
      if (!choice.text) return;
      const now = performance.now();
      this.first ??= now;
      this.last = now;
      const tokens = (choice.coreinfer && choice.coreinfer.tokens) || 1; // a message may bring several
      this.tokens += tokens;
      this.before ??= tokens;
      this.written += choice.text;
      this.body.appendData(choice.text);
      this.text.scrollTop = this.text.scrollHeight;
      this.rate(now > this.first ? ((this.tokens - this.before) * 1000) / (now - this.first) : null);
      this.foot.textContent = this.told ? `${this.told.source}, keep ${this.told.keep}` : "";
    }

    rate(perSecond) {
      this.perSecond = perSecond;
      this.speed.replaceChildren(
        ...(perSecond ? [perSecond.toFixed(perSecond < 10 ? 1 : 0), ours.el("small", {}, " tok/s")] : []),
      );
    }

    end(stopped) {
      if (this.told && this.told.tokens_per_second) this.rate(this.told.tokens_per_second); // the server's own clock
      const facts = [
        stopped ? "stopped" : null,
        this.told && `${this.told.source}, keep ${this.told.keep}`,
        this.told && this.told.neurons && `${ours.whole(this.told.neurons)} neurons`,
        this.told &&
          this.told.first_token_s !== undefined &&
          this.told.first_token_s !== null &&
          `first token after ${this.told.first_token_s.toFixed(2)} s`,
      ];
      this.foot.textContent = facts.filter(Boolean).join(" · ");
    }

    // Mark the word at which this text leaves the other one.
    differsFrom(other) {
      const a = [...this.written],
        b = [...other.written];
      let same = 0;
      while (same < a.length && same < b.length && a[same] === b[same]) same += 1;
      if (same === a.length && same === b.length) return false;
      let from = same,
        to = same;
      while (from > 0 && /\S/.test(a[from - 1])) from -= 1;
      while (to < a.length && (to === same || /\S/.test(a[to]))) to += 1;
      const asked = this.text.firstChild;
      this.text.replaceChildren(
        asked,
        a.slice(0, from).join(""),
        ours.el("mark", {}, a.slice(from, to).join("")),
        a.slice(to).join(""),
      );
      return true;
    }
  }

  ours.Generating = class {
    constructor(state, at, failed, fine) {
      Object.assign(this, {
        state,
        at,
        failed,
        fine,
        panes: { dense: new Pane("dense", at), core: new Pane("core", at) },
      });
      at("go").addEventListener("click", () => this.go());
      at("stop").addEventListener("click", () => this.stopping && this.stopping.abort());
      at("together").addEventListener("change", () => this.order());
      this.order();
    }

    order() {
      this.at("order").textContent = this.at("together").checked
        ? "Both share the machine, so neither speed is what it would be alone."
        : "One after the other, so that each has the machine to itself.";
    }

    async run(name, prompt) {
      const pane = this.panes[name],
        most = Math.max(1, Math.min(400, Number(this.at("most").value) || 80));
      const body = {
        model: this.state.model,
        prompt,
        max_tokens: most,
        temperature: 0,
        stream: true,
        stream_options: { include_usage: true },
        policy: name === "dense" ? "dense" : "auto",
      };
      if (name === "core") body.keep = this.state.keep();
      try {
        for await (const event of ours.events("v1/completions", body, this.stopping.signal)) pane.take(event);
        pane.end(false);
      } catch (error) {
        pane.end(true);
        if (error.name !== "AbortError") {
          pane.foot.textContent = error.message;
          throw error;
        }
      }
    }

    async go() {
      const prompt = this.at("prompt").value;
      if (!prompt.trim()) {
        this.failed(new ours.Refused("Type a prompt first.", 400, 0));
        return this.at("prompt").focus();
      }
      if (this.stopping) return;
      this.stopping = new AbortController();
      this.at("go").disabled = true;
      this.at("stop").disabled = false;
      this.at("done").textContent = "Generating.";
      Object.values(this.panes).forEach((pane) => pane.begin(prompt));
      try {
        if (this.at("together").checked) await Promise.all([this.run("dense", prompt), this.run("core", prompt)]);
        else for (const name of ["dense", "core"]) if (!this.stopping.signal.aborted) await this.run(name, prompt);
        this.fine();
        this.at("done").textContent = this.inWords();
      } catch (error) {
        this.stopping.abort(); // the other one too
        this.failed(error, () => this.go());
        this.at("done").textContent = "";
      } finally {
        this.at("go").disabled = false;
        this.at("stop").disabled = true;
        this.stopping = null;
        for (const pane of Object.values(this.panes))
          if (pane.foot.textContent === "waiting …") pane.foot.textContent = "not begun";
      }
    }

    inWords() {
      const { dense, core } = this.panes;
      if (this.stopping.signal.aborted) return "Stopped.";
      const differs = core.differsFrom(dense);
      if (dense.perSecond && core.perSecond)
        core.foot.textContent += ` · ${(core.perSecond / dense.perSecond).toFixed(2)}× dense`;
      core.foot.textContent += differs ? " · marked: where it leaves the dense text" : " · the same text";
      return `Done. ${differs ? "The texts differ." : "The texts are the same."}`;
    }
  };
})(window.coreinfer);
