import { expect, it } from "vitest";
import { messageAt, PREVIEW_MAX_CHARS, PREVIEW_MAX_MESSAGES, PreviewModel } from "../../src/preview/previewModel";

function page(model: PreviewModel, offset: number, count: number, content = "text") {
  const messages = Array.from({ length: count }, (_, index) => ({
    role: "user",
    content: `${content} ${String(offset + index)}`,
  }));
  const event = { handleId: "h1", seq: 0, page: 1, totalMessages: offset + count };
  model.take({ name: "session-preview:page", payload: { ...event, offset, messages } });
}

it("each message is found by its number, whatever the sizes of pages", () => {
  const model = new PreviewModel();
  let offset = 0;
  for (const count of [1, 100, 3, 50, 1, 1]) {
    page(model, offset, count);
    offset += count;
  }
  const { pages, totalMessages } = model.view();
  expect(totalMessages).toBe(offset);
  for (let index = 0; index < offset; index++) expect(messageAt(pages, index).content).toBe(`text ${String(index)}`);
});

it("a view doesn't change when more comes", () => {
  const model = new PreviewModel();
  page(model, 0, 2);
  const before = model.view();
  page(model, 2, 2);
  expect(before.pages).toHaveLength(1);
  expect(model.view().pages[0]).toBe(before.pages[0]);
});

it("more messages than a page can show are left out, and that is said", () => {
  const model = new PreviewModel();
  page(model, PREVIEW_MAX_MESSAGES - 10, 10);
  expect(model.view().full).toBe(false);
  page(model, PREVIEW_MAX_MESSAGES, 10);
  page(model, PREVIEW_MAX_MESSAGES + 10, 10);
  expect(model.view()).toMatchObject({ full: true, totalMessages: PREVIEW_MAX_MESSAGES });
  const done = { handleId: "h1", seq: 3, totalMessages: PREVIEW_MAX_MESSAGES, cancelled: true, skippedLines: 0 };
  expect(model.take({ name: "session-preview:done", payload: done })).toEqual({ phase: "done" });
});

it("more text than a page may hold is the end of it, too", () => {
  const model = new PreviewModel();
  page(model, 0, 1, "x".repeat(PREVIEW_MAX_CHARS));
  page(model, 1, 1);
  expect(model.view()).toMatchObject({ full: true, totalMessages: 1 });
});
