import react from "@vitejs/plugin-react";
import { defineConfig } from "vitest/config";

export default defineConfig({
  plugins: [react()],
  test: {
    projects: [
      { extends: true, test: { name: "unit", include: ["tests/unit/**/*.test.{ts,tsx}"], environment: "jsdom" } },
      ...["real", "screenshots"].map((name) => ({
        test: {
          name,
          include: [`tests/${name}/**/*.test.ts`],
          environment: "node" as const,
          // They start sidecars and browsers, on a machine that may be busy.
          testTimeout: 60_000,
          hookTimeout: 60_000,
          fileParallelism: false,
        },
      })),
    ],
  },
});
