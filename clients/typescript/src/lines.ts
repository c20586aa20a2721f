/** The pieces of a stream as the network cuts them, put together: lines, and Server-Sent Events. Pure. */

export interface ServerSentEvent {
  event: string;
  data: string;
}

type Pieces = AsyncIterable<Uint8Array>;

/** The lines of a body, without their ends; a last line needs none. */
export async function* lines(pieces: Pieces): AsyncGenerator<string> {
  const decoder = new TextDecoder();
  let rest = "";
  for await (const piece of pieces) {
    rest += decoder.decode(piece, { stream: true });
    // A carriage return at the end may be half of a line end.
    const found = rest.split(/\r\n|\n|\r(?!$)/);
    rest = found.pop() ?? "";
    yield* found;
  }
  rest += decoder.decode();
  if (rest) yield rest.replace(/\r$/, "");
}

/** Each line of newline-delimited JSON. */
export async function* jsonLines(pieces: Pieces): AsyncGenerator<unknown> {
  for await (const line of lines(pieces)) if (line.trim()) yield JSON.parse(line);
}

/** Server-Sent Events by the HTML standard (9.2.6). What ends in the middle of an event isn't one. */
export async function* serverSentEvents(pieces: Pieces): AsyncGenerator<ServerSentEvent> {
  let event = "";
  let data: string[] = [];
  for await (const line of lines(pieces)) {
    if (line === "") {
      if (data.length) yield { event: event || "message", data: data.join("\n") };
      event = "";
      data = [];
      continue;
    }
    const [, name, value = ""] = /^([^:]*)(?:: ?(.*))?$/s.exec(line) ?? [];
    if (name === "data") data.push(value);
    else if (name === "event") event = value;
  }
}
