import js from "@eslint/js";
import reactHooks from "eslint-plugin-react-hooks";
import { defineConfig, globalIgnores } from "eslint/config";
import tseslint from "typescript-eslint";

export default defineConfig(
  globalIgnores(["eslint.config.js", "dist", "dist-browser", "src-tauri", "target", "tauri-plugin-clawpal-sidecar"]),
  js.configs.recommended,
  tseslint.configs.strictTypeChecked,
  reactHooks.configs.flat["recommended-latest"],
  {
    languageOptions: { parserOptions: { project: ["tsconfig.json", "tsconfig.node.json"] } },
    rules: {
      // Commands reject with bare strings, as Tauri's do.
      "@typescript-eslint/prefer-promise-reject-errors": "off",
      // Where it is there by what was done just before.
      "@typescript-eslint/no-non-null-assertion": "off",
    },
  },
  {
    // Plain JavaScript, for Node alone.
    files: ["tests/window/**"],
    extends: [tseslint.configs.disableTypeChecked],
    languageOptions: { parserOptions: { project: null }, globals: { process: "readonly" } },
  },
);
