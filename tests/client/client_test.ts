import { cases } from "./cases.ts";
import { testWithOwnServer } from "./own_server.ts";

testWithOwnServer(cases);
