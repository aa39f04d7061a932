// Strata Condition Mask says, while wires are connected, which layers are given and which will be made.

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";

const COLOURS = { given: "#9fc5e8", made: "#f0b45a", problem: "#f08080" };
const HEIGHT = 64; // pixels

app.registerExtension({
  name: "Strata.ConditionMask",

  async beforeRegisterNodeDef(nodeType, nodeData) {
    if (nodeData.name !== "StrataConditionMask") return;

    const created = nodeType.prototype.onNodeCreated;
    nodeType.prototype.onNodeCreated = function (...args) {
      created?.apply(this, args);
      const box = Object.assign(document.createElement("div"), { className: "strata-task" });
      box.style.cssText = "padding: 4px 8px; font: 12px sans-serif; line-height: 1.4; overflow: auto;";
      const widget = this.addDOMWidget("task", "strata_task", box, { serialize: false, getMinHeight: () => HEIGHT });
      widget.serialize = false; // neither in the graph nor in the prompt
      this.strataTask = box;
      ask(this);
    };

    for (const moment of ["onConnectionsChange", "onConfigure", "onWidgetChanged"]) {
      const before = nodeType.prototype[moment];
      nodeType.prototype[moment] = function (...args) {
        const result = before?.apply(this, args);
        ask(this);
        return result;
      };
    }
  },
});

/** Ask once the wires and the choices of this moment have settled. */
function ask(node) {
  clearTimeout(node.strataAsking);
  node.strataAsking = setTimeout(async () => {
    const box = node.strataTask, question = wired(node);
    if (!box || !question) return;
    try {
      const answer = await api.fetchApi(`/strata/task?${question}`);
      tell(box, await answer.json());
    } catch {
      box.replaceChildren(); // no server, no words; the graph is none the worse
    }
  }, 50);
}

/** What stands on the node, as the server is asked it; null before it has a family. */
function wired(node) {
  const value = (name) => node.widgets?.find((widget) => widget.name === name)?.value;
  const family = value("family");
  if (!family) return null;
  const question = new URLSearchParams({ family }), generate = value("family.generate");
  if (generate) question.set("generate", generate);
  for (const input of node.inputs ?? []) {
    if (input.link == null || !input.name.startsWith("family.")) continue;
    const name = input.name.slice("family.".length);
    if (name.endsWith("_mask")) question.append("mask", name.slice(0, -"_mask".length));
    else question.append("given", name);
  }
  return question;
}

/** Show an answer in words and colour. */
function tell(box, answer) {
  const line = (colour, ...texts) => {
    const row = document.createElement("div");
    row.style.color = colour;
    row.append(texts.join(""));
    return row;
  };
  if (answer.problem) {
    box.replaceChildren(line(COLOURS.problem, answer.problem));
    return;
  }
  const made = answer.made.map((layer) => answer.parts.includes(layer) ? `${layer} (in parts)` : layer);
  box.replaceChildren(
    line("inherit", answer.task, answer.reads ? " · reads the prompt" : " · leave the prompt empty"),
    line(COLOURS.given, "given: ", answer.given.join(", ") || "nothing"),
    line(COLOURS.made, "made: ", made.join(", ")));
}
