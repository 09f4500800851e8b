// Reads a list of custom resources and validates each with its CRD's schema; prints what is wrong.
import * as gateway from "@kubernetes-models/gateway-api/gateway.networking.k8s.io/v1";
import * as prometheus from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1";

let text = "";
for await (const part of process.stdin) text += part;

for (const resource of JSON.parse(text)) {
  const Model = { ...gateway, ...prometheus }[resource.kind];
  if (Model === undefined) throw new Error(`no schema of the kind ${resource.kind}`);
  try {
    new Model(resource).validate();
  } catch (error) {
    console.log(`${resource.kind}: ${error.message}`);
  }
}
