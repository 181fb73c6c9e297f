import { defineConfig } from "vite";

const gateway = process.env["CORRAL_URL"] ?? "http://127.0.0.1:11434";

export default defineConfig(({ command }) => ({
  // Relative addresses: the page works under any path prefix. The development server has the gateway's path.
  base: command === "build" ? "./" : "/ui/",
  build: {
    target: "es2022",
    assetsInlineLimit: 0, // the Content-Security-Policy of the gateway admits files, and no inline script or style
    modulePreload: { polyfill: false },
    license: { fileName: "assets/licenses.txt" }, // of the libraries in the page: they ask for it
  },
  server: {
    proxy: { "/api": gateway, "/ui/events": gateway },
  },
}));
