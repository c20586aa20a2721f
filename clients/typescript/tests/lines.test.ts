import assert from "node:assert/strict";
import { test } from "node:test";

import { jsonLines, lines, serverSentEvents } from "../src/lines.ts";

/** The bytes of a text in pieces of one size: characters and line ends are cut too. */
async function* cut(text: string, size: number): AsyncGenerator<Uint8Array> {
  const bytes = new TextEncoder().encode(text);
  for (let start = 0; start < bytes.length; start += size) yield bytes.subarray(start, start + size);
}

async function all<T>(found: AsyncIterable<T>): Promise<T[]> {
  const made: T[] = [];
  for await (const each of found) made.push(each);
  return made;
}

test("lines are whole wherever the network cuts them", async () => {
  const text = "one\r\ntwo ü€😀\n\nthree\rfour\r\n\r\nfive";
  for (let size = 1; size <= text.length + 9; size += 1) {
    assert.deepEqual(
      await all(lines(cut(text, size))),
      ["one", "two ü€😀", "", "three", "four", "", "five"],
      `pieces of ${size}`,
    );
  }
});

test("a last line needs no end, and an empty body has none", async () => {
  assert.deepEqual(await all(jsonLines(cut('{"a":1}\n\n{"a":"\\n"}', 3))), [{ a: 1 }, { a: "\n" }]);
  assert.deepEqual(await all(lines(cut("", 1))), []);
});

test("events are read as the standard has it", async () => {
  const text =
    ": comment\ndata: one\ndata:two\nid: 7\nretry: 9\n\nevent: problem\ndata: {}\n\nevent: nothing\n\ndata\n\ndata: cut";
  const wanted = [
    { event: "message", data: "one\ntwo" },
    { event: "problem", data: "{}" },
    { event: "message", data: "" },
  ];
  for (const size of [1, 2, 3, 7, 1000]) assert.deepEqual(await all(serverSentEvents(cut(text, size))), wanted);
  assert.deepEqual(await all(serverSentEvents(cut(`\uFEFF${text.replaceAll("\n", "\r\n")}`, 5))), wanted);
});

test("what goes through a stream is asked for piece by piece", async () => {
  let asked = 0;
  async function* pieces() {
    for (;;) {
      asked += 1;
      yield new TextEncoder().encode(`{"n":${asked}}\n`);
    }
  }
  for await (const found of jsonLines(pieces())) if ((found as { n: number }).n === 3) break;
  assert.equal(asked, 3);
});
