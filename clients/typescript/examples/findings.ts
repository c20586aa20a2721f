/**
 * Prints an organization's open findings, and what they come to.
 *
 *     RECOUP_GATEWAY=… RECOUP_TOKEN=… RECOUP_ORG=… node examples/findings.ts
 */

import { bearerToken, RecoupClient, RecoupError } from "@recoup/client";

const { RECOUP_GATEWAY: baseUrl = "", RECOUP_TOKEN: token = "", RECOUP_ORG: organization = "" } = process.env;
const client = new RecoupClient({ baseUrl, credential: bearerToken(token), organization });

try {
  let shown = 0;
  for await (const finding of client.items("/v1/organizations/{organization_id}/findings", "findings", {
    query: { state: "FINDING_STATE_OPEN" },
  })) {
    const { amount, currency } = finding.monthlySaving ?? { amount: "unknown", currency: "" };
    console.log([finding.detectionId, finding.resource?.id, amount, currency].join("\t"));
    shown += 1;
  }
  console.error(`${shown} findings`);
} catch (error) {
  if (!(error instanceof RecoupError)) throw error;
  console.error(`${error.reason}: ${error.message} (request ${error.requestId})`);
  process.exitCode = 1;
}
