// Puts the layer viewer on its node.

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { Viewer } from "./viewer/viewer.js";

const SIZE = [520, 560]; // pixels of a new node

app.registerExtension({
  name: "Strata.LayerViewer",

  async beforeRegisterNodeDef(nodeType, nodeData) {
    if (nodeData.name !== "StrataLayerViewer") return;

    const created = nodeType.prototype.onNodeCreated;
    nodeType.prototype.onNodeCreated = function (...args) {
      created?.apply(this, args);
      this.strataViewer = new Viewer(api);
      // Not saved: a graph holds no pictures, and the values of its widgets go by their order.
      this.addDOMWidget("viewer", "strata_viewer", this.strataViewer.root, { serialize: false, hideOnZoom: false });
      this.setSize([Math.max(this.size[0], SIZE[0]), Math.max(this.size[1], SIZE[1])]);
    };

    const executed = nodeType.prototype.onExecuted;
    nodeType.prototype.onExecuted = function (output, ...args) {
      executed?.call(this, output, ...args);
      if (output?.strata_layers) this.strataViewer.show(output.strata_layers, output.strata_rate?.[0] ?? 24);
    };

    const removed = nodeType.prototype.onRemoved;
    nodeType.prototype.onRemoved = function (...args) {
      this.strataViewer.state.playing = false;
      removed?.apply(this, args);
    };
  },
});
