/**
 * Scans a connection, says how far it is, and how it ended. Exits with 1 unless it read everything.
 *
 *     RECOUP_GATEWAY=… RECOUP_TOKEN=… RECOUP_ORG=… node examples/scan.ts CONNECTION_ID
 */

import { bearerToken, RecoupClient, RecoupError } from "@recoup/client";

const { RECOUP_GATEWAY: baseUrl = "", RECOUP_TOKEN: token = "", RECOUP_ORG: organization = "" } = process.env;
const client = new RecoupClient({ baseUrl, credential: bearerToken(token), organization });
const [connectionId = ""] = process.argv.slice(2);

try {
  const { scan } = await client.post("/v1/organizations/{organization_id}/scans", { body: { connectionId } });
  let state = "";
  for await (const now of client.scan(scan?.scanId ?? "").progress({ deadline: 600_000 })) {
    console.log(`${now.unitsDone} of ${now.unitsTotal}`);
    state = now.state;
  }
  console.log(state);
  process.exitCode = state === "SCAN_STATE_COMPLETE" ? 0 : 1;
} catch (error) {
  if (!(error instanceof RecoupError)) throw error;
  console.error(`${error.reason}: ${error.message} (request ${error.requestId})`);
  process.exitCode = 1;
}
